"""The plugins of this program: importing one enables it."""

import pymicro_broker_http  # noqa: F401 (enabled)
import pymicro_codec_protobuf  # noqa: F401 (enabled)
import pymicro_registry_mdns  # noqa: F401 (enabled)
import pymicro_transport_http  # noqa: F401 (enabled)
import static_file_plugin  # noqa: F401 (enabled)
