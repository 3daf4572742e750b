"""The look of report.html: light or dark as the reader's system is, from a phone's width to paper."""

from mlx_lvm.evaluation.report.drawing import variables

LIGHT = (
    "--page:#fff;--ink:#111827;--quiet:#4b5563;--line:#e5e7eb;--rule:#9ca3af;--own:#fff7ed;--band:#f3f4f6;"
    "--good:#15803d;--good-page:#f0fdf4;--bad:#b91c1c;--bad-page:#fef2f2;--even:#b45309;--even-page:#fffbeb;"
)
DEEP = (
    "--page:#0f1420;--ink:#e5e7eb;--quiet:#9ca8b8;--line:#273043;--rule:#4b5568;--own:#2a1c10;--band:#1a2233;"
    "--good:#4ade80;--good-page:#0d2418;--bad:#f87171;--bad-page:#2b1416;--even:#fbbf24;--even-page:#2a2110;"
)
RULES = """
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1.2rem 1rem 3rem;
  color: var(--ink); background: var(--page);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2.2rem 0 .4rem; overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 1rem 0 .3rem; overflow-wrap: anywhere; }
p { margin: .4rem 0; max-width: 46rem; overflow-wrap: anywhere; }
.lead, .note, figcaption { color: var(--quiet); font-size: .9rem; overflow-wrap: anywhere; }
.warning { border-left: .4rem solid var(--even); padding-left: .8rem; font-weight: 600; }
.verdict { --mark: var(--even); border-left: .4rem solid var(--mark); background: var(--even-page);
  padding: .8rem 1rem; margin: 1rem 0; }
.verdict.better { --mark: var(--good); background: var(--good-page); }
.verdict.worse { --mark: var(--bad); background: var(--bad-page); }
.verdict > p { font-size: 1.15rem; font-weight: 600; max-width: none; margin: 0 0 .7rem; }
.claims { font-size: .9rem; max-width: 60rem; }
.claim { display: grid; grid-template-columns: minmax(7rem, 12rem) 1fr 14.5rem; gap: 0 1rem;
  grid-template-areas: "label bar value"; align-items: center; padding: .15rem 0; }
.claim > * { min-width: 0; overflow-wrap: anywhere; }
.claim .label { grid-area: label; } .claim .bar { grid-area: bar; } .claim .value { grid-area: value; }
.ends .bar { display: flex; justify-content: space-between; color: var(--quiet); font-size: .8rem; }
.claims svg { display: block; width: 100%; height: 1.3rem; overflow: visible; }
.claims svg path { vector-effect: non-scaling-stroke; stroke: var(--even); stroke-linecap: round;
  fill: none; }
.claims svg.better path { stroke: var(--good); } .claims svg.worse path { stroke: var(--bad); }
.claims svg path.zero { stroke: var(--rule); stroke-dasharray: 3 3; }
.claim .value { font-variant-numeric: tabular-nums; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr));
  gap: 1.2rem 2rem; margin-top: 1rem; }
figure { margin: 0; break-inside: avoid; min-width: 0; }
figure h3 { font-size: .98rem; margin: 0 0 .2rem; }
svg.figure { display: block; width: 100%; height: auto; max-width: 34rem; }
svg.figure text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial,
  sans-serif !important; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .25rem .45rem; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
thead th { font-weight: 600; border-bottom-color: var(--rule); white-space: normal; vertical-align: bottom; }
tbody th { font-weight: 400; }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--page); white-space: normal;
  overflow-wrap: anywhere; min-width: 7rem; max-width: 16rem; }
tr.model th, tr.model td { background: var(--own); font-weight: 600; }
tr.control th, tr.control td { color: var(--quiet); }
.provenance { width: 100%; max-width: 60rem; table-layout: fixed; }
.provenance th:first-child { width: 9rem; min-width: 0; color: var(--quiet); vertical-align: top;
  position: static; }
.provenance td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.provenance tr.group th { width: auto; padding-top: .9rem; color: var(--ink); font-weight: 600; }
.case { display: grid; grid-template-columns: 4.5rem 1fr 1fr; gap: .1rem 1.2rem; font-size: .86rem;
  border-top: 1px solid var(--line); padding: .45rem 0; break-inside: avoid; }
.case b { grid-row: span 2; font-variant-numeric: tabular-nums; }
.case .where { grid-column: 2 / 4; font-weight: 600; overflow-wrap: anywhere; }
.case p { margin: 0; }
.case i { color: var(--quiet); }
code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: .92em;
  overflow-wrap: anywhere; }
@media (max-width: 52rem) { table { font-size: .8rem; } th, td { padding: .25rem .35rem; } }
@media (max-width: 40rem) {
  body { padding: 1rem .8rem 2rem; }
  .more { display: none; }
  .claim { grid-template-columns: 1fr; grid-template-areas: "label" "value" "bar"; padding: .3rem 0; }
  .case { grid-template-columns: 4.5rem 1fr; } .case p { grid-column: 1 / 3; }
  .case b { grid-row: auto; } .case .where { grid-column: 2; }
  .provenance th:first-child { width: 6.5rem; }
}
@media print { body { max-width: none; padding: 0; font-size: 10.5pt; }
  .scroll { overflow: visible; } th, td { padding: .12rem .3rem; white-space: normal; }
  table { font-size: 7.5pt; } .figures { grid-template-columns: 1fr 1fr; gap: .8rem 1.2rem; }
  h2 { break-after: avoid; } tr { break-inside: avoid; } th:first-child { position: static; min-width: 0; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""


def style() -> str:
    """The page's style sheet. On paper it is light whatever the screen is."""
    return (
        f":root {{ color-scheme: light dark; {LIGHT}{variables(dark=False)} }}\n"
        f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {DEEP}{variables(dark=True)} }} }}"
        f"{RULES}"
    )
