"""Temperatures, fans, voltages, batteries: what sysfs has of the hardware's sensors.

Sources of the formats: the kernel's Documentation/hwmon/sysfs-interface.rst, driver-api/thermal/sysfs-api.rst,
ABI/testing/sysfs-class-power.
"""

from __future__ import annotations

import re
from pathlib import Path

from collector.host.group import Files, Readings

__all__ = ["hwmon", "powersupplyclass", "sensor_value", "thermal_zone"]

_FILE = re.compile(r"([^0-9]+?)([0-9]*)(?:_(.+))?")
_TYPES = re.compile(
    "vrm|beep_enable|update_interval|in|cpu|fan|pwm|temp|curr|power|energy|humidity|intrusion"
)
#: Kind of sensor to its unit in the family's name and to what its numbers are divided by.
_UNITS = {
    "in": ("_volts", 1000),
    "cpu": ("_volts", 1000),
    "temp": ("_celsius", 1000),
    "curr": ("_amps", 1000),
    "energy": ("_joule_total", 1_000_000),
    "power": ("_watt", 1_000_000),
    "humidity": ("", 1_000_000),
}
_SPECIAL = {
    "vrm": ("node_hwmon_voltage_regulator_version", 1),
    "update_interval": ("node_hwmon_update_interval_seconds", 1000),
    "beep_enable": ("node_hwmon_beep_enabled", 1),
}


def _clean(name: str) -> str:
    return re.sub(r"[^a-z0-9:_]", "_", name.strip().lower()).strip("_")


def sensor_value(kind: str, element: str, value: float, has_plain: bool = False) -> tuple[str, float]:
    """The family of a file of hwmon and the value in the family's unit.

    ``kind`` is ``temp`` of ``temp1_crit``, ``element`` is ``crit``; ``has_plain`` says that there is a file
    ``temp1`` too, which takes the name without an element from ``temp1_input``.
    """
    if kind in _SPECIAL:
        family, over = _SPECIAL[kind]
        return family, value / over if over > 1 else value
    family = f"node_hwmon_{kind}"
    if element and (element != "input" or has_plain):
        family += "_" + _clean(element)
    if element in ("fault", "alarm"):
        return family, value
    if element == "beep":
        return family + "_enabled", value
    if kind == "fan" and element in ("input", "min", "max", "target"):
        return family + "_rpm", value
    if kind == "power" and element == "accuracy":
        return family, value / 1_000_000
    if kind == "power" and element.startswith("average_interval"):
        return family + "_seconds", value / 1000
    if kind not in _UNITS or (kind == "temp" and element == "type"):
        return family, value
    unit, over = _UNITS[kind]
    return family + unit, value / over


def _sensor_files(files: Files, chip: str) -> dict[str, dict[str, str]]:
    """Sensor to its elements and their files; older drivers have them in ``device``."""
    sensors: dict[str, dict[str, str]] = {}
    for directory in (chip, f"{chip}/device"):
        for name in files.some_names(directory):
            matched = _FILE.fullmatch(name)
            kind, number, element = matched.groups() if matched else ("", "", "")
            if name in _SPECIAL:
                kind, number, element = name, "0", ""
            if _TYPES.fullmatch(kind):
                sensors.setdefault(f"{kind}{number or 0}", {})[element or ""] = f"{directory}/{name}"
    return sensors


def _chip_name(chip: str, name: str | None) -> str:
    """What stays the same when drivers are loaded in another order: where the device is, else its name."""
    device = Path(chip, "device")
    if device.exists():
        device = device.resolve()
        return "_".join(filter(None, (_clean(device.parent.name), _clean(device.name))))
    return _clean(name or "") or Path(chip).resolve().name


def hwmon(files: Files) -> Readings:
    """Node Exporter's ``hwmon``. Raises Absent on a machine without sensors' class."""
    directory = f"{files.sys}/class/hwmon"
    readings: Readings = {}
    for entry in files.names(directory):
        chip = f"{directory}/{entry}"
        human = files.text(f"{chip}/name")
        name = _chip_name(chip, human)
        if human:
            readings.setdefault("node_hwmon_chip_names", []).append(((name, _clean(human)), 1))
        for sensor, elements in _sensor_files(files, chip).items():
            kind = sensor.rstrip("0123456789")
            for element, path in elements.items():
                text = files.text(path)
                if text is None:
                    continue
                if element == "label":
                    readings.setdefault("node_hwmon_sensor_label", []).append(((name, sensor, text), 1))
                    continue
                try:
                    number = float(text)
                except ValueError:
                    continue  # fan1_div and the like may be words
                family, value = sensor_value(kind, element, number, "" in elements)
                readings.setdefault(family, []).append(((name, sensor), value))
    return readings


def thermal_zone(files: Files) -> Readings:
    """Node Exporter's ``thermal_zone``: temperatures, and how hard cooling devices work."""
    directory = f"{files.sys}/class/thermal"
    readings: Readings = {}
    for name in files.some_names(directory, r"thermal_zone\d+"):
        path = f"{directory}/{name}"
        value, kind = files.number(f"{path}/temp"), files.text(f"{path}/type")
        if value is not None:
            labels = (name.removeprefix("thermal_zone"), kind or "")
            readings.setdefault("node_thermal_zone_temp", []).append((labels, value / 1000))
    for name in files.some_names(directory, r"cooling_device\d+"):
        path = f"{directory}/{name}"
        labels = (name.removeprefix("cooling_device"), files.text(f"{path}/type") or "")
        for state in ("cur_state", "max_state"):
            value = files.number(f"{path}/{state}")
            if value is not None:
                readings.setdefault(f"node_cooling_device_{state}", []).append((labels, value))
    return readings


#: Files of a power supply to their families and divisors, where names differ from files.
_RENAMED = {
    "cycle_count": "cyclecount",
    "time_to_empty_now": "time_to_empty_seconds",
    "time_to_full_now": "time_to_full_seconds",
    "current_now": "current_ampere",
    "energy_now": "energy_watthour",
    "voltage_now": "voltage_volt",
    "charge_now": "charge_ampere",
    "power_now": "power_watt",
}
_WHOLE = (
    "authentic calibrate capacity capacity_alert_max capacity_alert_min cycle_count online present "
    "time_to_empty_now time_to_full_now"
)
_MICRO = (
    "current_boot current_max current_now energy_empty energy_empty_design energy_full energy_full_design "
    "energy_now voltage_boot voltage_max voltage_max_design voltage_min voltage_min_design voltage_now "
    "voltage_ocv charge_control_limit charge_control_limit_max charge_counter charge_empty "
    "charge_empty_design charge_full charge_full_design charge_now charge_term_current "
    "constant_charge_current constant_charge_current_max constant_charge_voltage "
    "constant_charge_voltage_max precharge_current input_current_limit power_now"
)
_TENTH = "temp temp_alert_max temp_alert_min temp_ambient temp_ambient_max temp_ambient_min temp_max temp_min"
_SUPPLY = {
    **{file: ("node_power_supply_" + _RENAMED.get(file, file), 1) for file in _WHOLE.split()},
    **{file: ("node_power_supply_" + _RENAMED.get(file, file), 1_000_000) for file in _MICRO.split()},
    **{file: (f"node_power_supply_{file}_celsius", 10) for file in _TENTH.split()},
}
_SUPPLY_TEXTS = (
    "capacity_level charge_type health manufacturer model_name serial_number status technology type "
    "usb_type scope"
)


def powersupplyclass(files: Files) -> Readings:
    """Node Exporter's ``powersupplyclass``. Raises Absent on a kernel without power supplies."""
    directory = f"{files.sys}/class/power_supply"
    readings: Readings = {}
    for name in files.names(directory):
        path = f"{directory}/{name}"
        for file in files.names(path):
            family, over = _SUPPLY.get(file, ("", 1))
            value = files.number(f"{path}/{file}") if family else None
            if value is not None:
                readings.setdefault(family, []).append(((name,), value / over if over > 1 else value))
        texts = tuple(files.text(f"{path}/{text}") or "" for text in _SUPPLY_TEXTS.split())
        readings.setdefault("node_power_supply_info", []).append(((name, *texts), 1))
    return readings
