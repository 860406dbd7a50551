"""What the machine is and what it draws. Knows no model and no engine.

Power comes with its class of evidence: M1 wall analyser, M2 node sensor, M3 component counters, M4 sampled component power, E1 to E3
estimates. What was not read is None.
"""

from hardware.base import HardwareError, Meter, MeterInfo, Reading, SensorReport, WatchedProcess
from hardware.constant import ConstantMeter
from hardware.declared import DeclaredOptions
from hardware.fingerprint import changes, digest, fingerprint
from hardware.host import Gpu, Host, HostError, describe_host, load_host, with_memory_bandwidth
from hardware.machine import Cpu
from hardware.measurable import Measurable, measurable
from hardware.meters import MeterOptions, load_options, open_meters, options_from, sensors
from hardware.page_cache import resident_share
from hardware.redfish import RedfishOptions
from hardware.sampler import Sampler

__all__ = [
    "ConstantMeter",
    "Cpu",
    "DeclaredOptions",
    "Gpu",
    "HardwareError",
    "Host",
    "HostError",
    "Measurable",
    "Meter",
    "MeterInfo",
    "MeterOptions",
    "Reading",
    "RedfishOptions",
    "Sampler",
    "SensorReport",
    "WatchedProcess",
    "changes",
    "describe_host",
    "digest",
    "fingerprint",
    "load_host",
    "load_options",
    "measurable",
    "open_meters",
    "options_from",
    "resident_share",
    "sensors",
    "with_memory_bandwidth",
]
