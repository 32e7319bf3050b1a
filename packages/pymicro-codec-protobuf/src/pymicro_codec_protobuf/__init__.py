"""Protocol Buffers codecs for pymicro. Importing the package enables them."""

from pymicro.plugins import enable
from pymicro_codec_protobuf import _plugin

enable(_plugin)
