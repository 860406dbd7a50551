"""What `host` says can be measured here."""

from hardware import SensorReport, measurable


def report(interface: str, evidence: str, boundary: str, usable: bool, note: str = "") -> SensorReport:
    return SensorReport(interface=interface, evidence=evidence, boundary=boundary, usable=usable, note=note)


def test_a_virtual_machine_without_sensors_is_told_what_would_give_better() -> None:
    found = measurable(
        (
            report("nvml", "M3", "gpu", False, "no driver"),
            report("rapl", "M3", "cpu_package", False, "no counters"),
            report("redfish", "M2", "node_ac", False, "not asked"),
            report("estimate", "E2", "cpu+board", True),
        )
    )
    assert [(m.quantity, m.by, m.evidence, m.sentence) for m in found[:4]] == [
        ("energy of the accelerators", None, None, "not here (nvml: no driver)"),
        (
            "energy of the processors",
            "estimate",
            "E2",
            "estimate, class E2 (an estimate with its range, never ranked); better: rapl: no counters",
        ),
        ("energy of the whole node", None, None, "not here (redfish: not asked)"),
        ("memory of the accelerators", None, None, "no accelerator whose memory can be read"),
    ]


def test_a_server_with_counters_needs_nothing_better() -> None:
    found = measurable(
        (
            report("nvml", "M3", "gpu", True),
            report("amd", "M3", "gpu", False, "no library"),
            report("rapl", "M3", "cpu_package+dram", True),
            report("estimate", "E2", "cpu_package", True),
            report("redfish", "M2", "node_ac", True),
        )
    )
    assert [m.sentence for m in found[:4]] == [
        "nvml, class M3 (energy counters, rankings of energy allowed)",
        "rapl, class M3 (energy counters, rankings of energy allowed)",
        "redfish, class M2 (node sensor, rankings of energy allowed)",
        "read by nvml",
    ]
