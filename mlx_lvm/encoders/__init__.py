"""Text encoders in MLX: a sentence-transformers folder as it is, computed without torch.

One file an architecture, with torch's parameter names. `encoder.TextEncoder` is what the rest uses.
"""

from mlx_lvm.encoders.base import EncoderConfig, TextModel
from mlx_lvm.encoders.bert import BertConfig, BertModel
from mlx_lvm.encoders.mpnet import MPNetConfig, MPNetModel
from mlx_lvm.encoders.t5 import T5Config, T5EncoderModel

ARCHITECTURES: dict[str, tuple[type[TextModel], type[EncoderConfig]]] = {
    "bert": (BertModel, BertConfig),
    "mpnet": (MPNetModel, MPNetConfig),
    "t5": (T5EncoderModel, T5Config),
}
