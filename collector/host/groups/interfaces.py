"""Network interfaces from files: what they carried (``netdev``) and what they are (``netclass``).

Of the host the agent runs on netlink tells the same at less cost (``linked.py``); files tell of any other, and
where the agent is in a network namespace of its own. Sources of the formats: the kernel's
net/core/net-procfs.c, Documentation/ABI/testing/sysfs-class-net.
"""

from __future__ import annotations

from collector.host.group import Absent, Files, Readings, Series

__all__ = [
    "ATTRIBUTES",
    "COLUMNS",
    "NOHANDLER",
    "SPEED",
    "bonding",
    "netclass_files",
    "netdev_files",
    "parse_net_dev",
]

SPEED = "node_network_speed_bytes"
#: The families of ``/proc/net/dev``, in its order.
COLUMNS = tuple(
    f"node_network_{direction}_{field}_total"
    for direction, fields in (
        ("receive", "bytes packets errs drop fifo frame compressed multicast"),
        ("transmit", "bytes packets errs drop fifo colls carrier compressed"),
    )
    for field in fields.split()
)
#: Files of an interface and the families they are; a file that has no answer leaves its family out.
ATTRIBUTES = (
    ("addr_assign_type", "node_network_address_assign_type"),
    ("carrier", "node_network_carrier"),
    ("carrier_changes", "node_network_carrier_changes_total"),
    ("carrier_up_count", "node_network_carrier_up_changes_total"),
    ("carrier_down_count", "node_network_carrier_down_changes_total"),
    ("dev_id", "node_network_device_id"),
    ("dormant", "node_network_dormant"),
    ("flags", "node_network_flags"),
    ("ifindex", "node_network_iface_id"),
    ("iflink", "node_network_iface_link"),
    ("link_mode", "node_network_iface_link_mode"),
    ("mtu", "node_network_mtu_bytes"),
    ("name_assign_type", "node_network_name_assign_type"),
    ("netdev_group", "node_network_net_dev_group"),
    ("speed", SPEED),
    ("type", "node_network_protocol_type"),
    ("tx_queue_len", "node_network_transmit_queue_length"),
)
NOHANDLER = "node_network_receive_nohandler_total"
_TEXTS = ("operstate", "address", "broadcast", "duplex", "ifalias")
_FILES = (*_TEXTS, *(file for file, _ in ATTRIBUTES))


def parse_net_dev(data: bytes) -> Readings:
    """``/proc/net/dev``: sixteen columns an interface."""
    readings: Readings = {name: [] for name in COLUMNS}
    columns = tuple(readings.values())
    for line in data.decode().splitlines()[2:]:
        name, _, rest = line.rpartition(":")
        label = (name.strip(),)
        for column, value in zip(columns, rest.split(), strict=True):
            column.append((label, int(value)))
    return readings


def netdev_files(files: Files) -> Readings:
    """Node Exporter's ``netdev``, the loopback included."""
    readings = parse_net_dev(files.read(f"{files.net}/dev"))
    without: Series = []
    for label, _ in readings[COLUMNS[0]]:
        value = files.number(f"{files.sys}/class/net/{label[0]}/statistics/rx_nohandler")
        if value is not None:
            without.append((label, value))
    readings[NOHANDLER] = without
    return readings


def netclass_files(files: Files) -> Readings:
    """Node Exporter's ``netclass``; speeds, which sysfs has in megabits, in bytes a second."""
    directory = f"{files.sys}/class/net"
    readings: Readings = {"node_network_up": [], "node_network_info": []}
    columns: list[Series] = [readings.setdefault(family, []) for _, family in ATTRIBUTES]
    for device in files.names(directory):
        values = files.attributes(f"{directory}/{device}", _FILES)
        if not values or values[0] is None:
            continue  # a file like bonding_masters, or an interface that just went
        texts = [(value or b"").decode(errors="replace").strip() for value in values[: len(_TEXTS)]]
        label = (device,)
        readings["node_network_up"].append((label, int(texts[0] == "up")))
        readings["node_network_info"].append(((device, *texts[1:], texts[0]), 1))
        for column, value, (_, family) in zip(columns, values[len(_TEXTS) :], ATTRIBUTES, strict=True):
            if value is not None:
                number = int(value, 0)
                column.append((label, number * 125_000 if family == SPEED else number))
    return readings


def bonding(files: Files) -> Readings:
    """Node Exporter's ``bonding``: how many interfaces a bond has, and how many of them work."""
    directory = f"{files.sys}/class/net"
    masters = files.required(f"{directory}/bonding_masters").decode().split()
    if not masters:
        raise Absent("bonding_masters")
    slaves: Series = []
    active: Series = []
    for master in masters:
        names = (files.text(f"{directory}/{master}/bonding/slaves") or "").split()
        states = [
            files.text(f"{directory}/{master}/lower_{name}/bonding_slave/mii_status")
            or files.text(f"{directory}/{master}/slave_{name}/bonding_slave/mii_status")
            for name in names
        ]
        slaves.append(((master,), len(names)))
        active.append(((master,), states.count("up")))
    return {"node_bonding_slaves": slaves, "node_bonding_active": active}
