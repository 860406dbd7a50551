"""stub, to be written"""

from hardware.host import Gpu


def inventory() -> tuple[list[Gpu], dict[str, str]]:
    return [], {}
