"""A container's configuration, as the Engine API's create body states it, in frozen typed objects.

``ContainerConfig.from_api`` checks types and names the field that is wrong; it ignores fields it does not
know, as Docker does, and keeps the raw body for inspect. Limits are checked in ``limits``; merging with
the image's defaults is left to ``oci``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runtime.fields import FieldError, Fields

__all__ = [
    "ContainerConfig",
    "Device",
    "EndpointConfig",
    "FieldError",
    "Healthcheck",
    "HostConfig",
    "LogConfig",
    "MountConfig",
    "PortBinding",
    "RestartPolicy",
    "ThrottleDevice",
    "Ulimit",
    "WeightDevice",
]


@dataclass(frozen=True, slots=True)
class PortBinding:
    """One ``-p``: where on the host a container port is published."""

    host_ip: str = ""  #: "" means every address
    host_port: str = ""  #: "" means any free one; ``8000-8010`` the first free of them


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """``no`` (or ""), ``always``, ``unless-stopped``, ``on-failure``."""

    name: str = ""
    maximum_retry_count: int = 0


@dataclass(frozen=True, slots=True)
class LogConfig:
    """Log driver ("" for the engine's default) and its options."""

    type: str = ""
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MountConfig:
    """One ``--mount``."""

    type: str  #: ``bind``, ``volume``, ``tmpfs``
    source: str
    target: str
    read_only: bool = False
    propagation: str = ""
    non_recursive: bool = False
    create_source: bool = False  #: BindOptions.CreateMountpoint
    no_copy: bool = False
    tmpfs_size_bytes: int = 0
    tmpfs_mode: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ulimit:
    """One ``--ulimit``."""

    name: str  #: ``nofile``, without RLIMIT_
    soft: int
    hard: int


@dataclass(frozen=True, slots=True)
class Device:
    """One ``--device``."""

    host_path: str
    container_path: str
    permissions: str  #: of ``r``, ``w``, ``m``


@dataclass(frozen=True, slots=True)
class ThrottleDevice:
    """A device's limit in bytes or operations per second."""

    path: str
    rate: int


@dataclass(frozen=True, slots=True)
class WeightDevice:
    """A device's relative block I/O weight, 10 to 1000."""

    path: str
    weight: int


@dataclass(frozen=True, slots=True)
class Healthcheck:
    """``HEALTHCHECK``; durations in nanoseconds, 0 for Docker's defaults."""

    test: tuple[str, ...]
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True)
class EndpointConfig:
    """What a container asks of one network."""

    ipv4_address: str = ""  #: "" lets the network choose
    ipv6_address: str = ""
    mac_address: str = ""
    aliases: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    driver_opts: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_api(cls, body: Mapping[str, Any] | None, path: str = "EndpointConfig") -> EndpointConfig:
        """Parse an EndpointSettings object (also the body of ``networks/<id>/connect``)."""
        return _endpoint(Fields(body, path))


@dataclass(frozen=True, slots=True)
class HostConfig:
    """The part that depends on the host. Sizes in bytes, CPU periods and quotas in microseconds."""

    memory: int = 0
    memory_swap: int = 0  #: memory plus swap; 0 means twice the memory, -1 without limit
    memory_reservation: int = 0
    memory_swappiness: int | None = None
    kernel_memory_tcp: int = 0
    oom_kill_disable: bool = False
    oom_score_adj: int = 0
    nano_cpus: int = 0
    cpu_shares: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_rt_period: int = 0
    cpu_rt_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids_limit: int | None = None
    blkio_weight: int = 0
    blkio_weight_device: tuple[WeightDevice, ...] = ()
    blkio_read_bps: tuple[ThrottleDevice, ...] = ()
    blkio_write_bps: tuple[ThrottleDevice, ...] = ()
    blkio_read_iops: tuple[ThrottleDevice, ...] = ()
    blkio_write_iops: tuple[ThrottleDevice, ...] = ()
    cgroup_parent: str = ""
    cgroupns_mode: str = ""
    network_mode: str = "default"
    port_bindings: Mapping[str, tuple[PortBinding, ...]] = field(default_factory=dict)
    publish_all_ports: bool = False
    links: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    restart_policy: RestartPolicy = field(default_factory=RestartPolicy)
    auto_remove: bool = False
    binds: tuple[str, ...] = ()
    mounts: tuple[MountConfig, ...] = ()
    volumes_from: tuple[str, ...] = ()
    volume_driver: str = ""
    tmpfs: Mapping[str, str] = field(default_factory=dict)
    shm_size: int = 0
    privileged: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    readonly_rootfs: bool = False
    masked_paths: tuple[str, ...] | None = None  #: None means the default list
    readonly_paths: tuple[str, ...] | None = None
    log_config: LogConfig = field(default_factory=LogConfig)
    pid_mode: str = ""
    ipc_mode: str = ""
    uts_mode: str = ""
    userns_mode: str = ""
    ulimits: tuple[Ulimit, ...] = ()
    sysctls: Mapping[str, str] = field(default_factory=dict)
    init: bool | None = None
    group_add: tuple[str, ...] = ()
    devices: tuple[Device, ...] = ()
    device_cgroup_rules: tuple[str, ...] = ()
    runtime: str = ""
    container_id_file: str = ""
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_api(cls, body: Mapping[str, Any] | None) -> HostConfig:
        """Parse a HostConfig object (also the body of ``containers/<id>/update``)."""
        return _host_config(Fields(body, "HostConfig"))


@dataclass(frozen=True, slots=True)
class ContainerConfig:
    """Everything a create request says about one container, before the image's defaults are merged in."""

    image: str
    cmd: tuple[str, ...] | None = None  #: None takes the image's
    entrypoint: tuple[str, ...] | None = None  #: None takes the image's, ("",) resets it
    env: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    working_dir: str = ""
    user: str = ""
    hostname: str = ""
    domainname: str = ""
    mac_address: str = ""
    tty: bool = False
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    stop_signal: str = ""
    stop_timeout: int | None = None  #: seconds
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    network_disabled: bool = False
    healthcheck: Healthcheck | None = None
    host: HostConfig = field(default_factory=HostConfig)
    networks: Mapping[str, EndpointConfig] = field(default_factory=dict)
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_api(cls, body: Mapping[str, Any]) -> ContainerConfig:
        """Parse the body of ``POST /containers/create``. Raises FieldError (HTTP 400)."""
        f = Fields(body)
        return cls(
            image=f.string("Image"),
            cmd=f.words("Cmd"),
            entrypoint=f.words("Entrypoint"),
            env=f.strings("Env"),
            labels=f.string_map("Labels"),
            working_dir=f.string("WorkingDir"),
            user=f.string("User"),
            hostname=f.string("Hostname"),
            domainname=f.string("Domainname"),
            mac_address=f.string("MacAddress"),
            tty=f.boolean("Tty"),
            attach_stdin=f.boolean("AttachStdin"),
            attach_stdout=f.boolean("AttachStdout"),
            attach_stderr=f.boolean("AttachStderr"),
            open_stdin=f.boolean("OpenStdin"),
            stdin_once=f.boolean("StdinOnce"),
            stop_signal=f.string("StopSignal"),
            stop_timeout=f.optional_integer("StopTimeout"),
            exposed_ports=f.keys("ExposedPorts"),
            volumes=f.keys("Volumes"),
            network_disabled=f.boolean("NetworkDisabled"),
            healthcheck=_healthcheck(f.object("Healthcheck")),
            host=_host_config(f.object("HostConfig")),
            networks=f.object("NetworkingConfig").object_map("EndpointsConfig", _endpoint),
            raw=body,
        )


def _host_config(f: Fields) -> HostConfig:
    return HostConfig(
        memory=f.integer("Memory"),
        memory_swap=f.integer("MemorySwap"),
        memory_reservation=f.integer("MemoryReservation"),
        memory_swappiness=f.optional_integer("MemorySwappiness"),
        kernel_memory_tcp=f.integer("KernelMemoryTCP"),
        oom_kill_disable=f.boolean("OomKillDisable"),
        oom_score_adj=f.integer("OomScoreAdj"),
        nano_cpus=f.integer("NanoCpus"),
        cpu_shares=f.integer("CpuShares"),
        cpu_period=f.integer("CpuPeriod"),
        cpu_quota=f.integer("CpuQuota"),
        cpu_rt_period=f.integer("CpuRealtimePeriod"),
        cpu_rt_runtime=f.integer("CpuRealtimeRuntime"),
        cpuset_cpus=f.string("CpusetCpus"),
        cpuset_mems=f.string("CpusetMems"),
        pids_limit=f.optional_integer("PidsLimit"),
        blkio_weight=f.integer("BlkioWeight"),
        blkio_weight_device=f.objects("BlkioWeightDevice", _weight),
        blkio_read_bps=f.objects("BlkioDeviceReadBps", _throttle),
        blkio_write_bps=f.objects("BlkioDeviceWriteBps", _throttle),
        blkio_read_iops=f.objects("BlkioDeviceReadIOps", _throttle),
        blkio_write_iops=f.objects("BlkioDeviceWriteIOps", _throttle),
        cgroup_parent=f.string("CgroupParent"),
        cgroupns_mode=f.string("CgroupnsMode"),
        network_mode=f.string("NetworkMode") or "default",
        port_bindings=_port_bindings(f.object("PortBindings")),
        publish_all_ports=f.boolean("PublishAllPorts"),
        links=f.strings("Links"),
        extra_hosts=f.strings("ExtraHosts"),
        dns=f.strings("Dns"),
        dns_options=f.strings("DnsOptions"),
        dns_search=f.strings("DnsSearch"),
        restart_policy=_restart_policy(f.object("RestartPolicy")),
        auto_remove=f.boolean("AutoRemove"),
        binds=f.strings("Binds"),
        mounts=f.objects("Mounts", _mount),
        volumes_from=f.strings("VolumesFrom"),
        volume_driver=f.string("VolumeDriver"),
        tmpfs=f.string_map("Tmpfs"),
        shm_size=f.integer("ShmSize"),
        privileged=f.boolean("Privileged"),
        cap_add=f.words("CapAdd") or (),
        cap_drop=f.words("CapDrop") or (),
        security_opt=f.strings("SecurityOpt"),
        readonly_rootfs=f.boolean("ReadonlyRootfs"),
        masked_paths=_optional_strings(f, "MaskedPaths"),
        readonly_paths=_optional_strings(f, "ReadonlyPaths"),
        log_config=_log_config(f.object("LogConfig")),
        pid_mode=f.string("PidMode"),
        ipc_mode=f.string("IpcMode"),
        uts_mode=f.string("UTSMode"),
        userns_mode=f.string("UsernsMode"),
        ulimits=f.objects("Ulimits", _ulimit),
        sysctls=f.string_map("Sysctls"),
        init=f.optional_boolean("Init"),
        group_add=f.strings("GroupAdd"),
        devices=f.objects("Devices", _device),
        device_cgroup_rules=f.strings("DeviceCgroupRules"),
        runtime=f.string("Runtime"),
        container_id_file=f.string("ContainerIDFile"),
        raw=f.raw,
    )


def _optional_strings(f: Fields, name: str) -> tuple[str, ...] | None:
    return None if f.raw.get(name) is None else f.strings(name)


def _restart_policy(f: Fields) -> RestartPolicy:
    return RestartPolicy(f.string("Name"), f.integer("MaximumRetryCount"))


def _log_config(f: Fields) -> LogConfig:
    return LogConfig(f.string("Type"), f.string_map("Config"))


def _weight(f: Fields) -> WeightDevice:
    return WeightDevice(f.string("Path"), f.integer("Weight"))


def _throttle(f: Fields) -> ThrottleDevice:
    return ThrottleDevice(f.string("Path"), f.integer("Rate"))


def _ulimit(f: Fields) -> Ulimit:
    return Ulimit(f.string("Name").lower().removeprefix("rlimit_"), f.integer("Soft"), f.integer("Hard"))


def _device(f: Fields) -> Device:
    host = f.string("PathOnHost")
    return Device(host, f.string("PathInContainer") or host, f.string("CgroupPermissions") or "rwm")


def _port_bindings(f: Fields) -> dict[str, tuple[PortBinding, ...]]:
    return {port: f.objects(port, _port_binding) for port in f.raw}


def _port_binding(f: Fields) -> PortBinding:
    return PortBinding(f.string("HostIp"), f.string("HostPort"))


def _mount(f: Fields) -> MountConfig:
    bind, volume, tmpfs = f.object("BindOptions"), f.object("VolumeOptions"), f.object("TmpfsOptions")
    return MountConfig(
        type=f.string("Type", "volume"),
        source=f.string("Source"),
        target=f.string("Target"),
        read_only=f.boolean("ReadOnly"),
        propagation=bind.string("Propagation"),
        non_recursive=bind.boolean("NonRecursive"),
        create_source=bind.boolean("CreateMountpoint"),
        no_copy=volume.boolean("NoCopy"),
        tmpfs_size_bytes=tmpfs.integer("SizeBytes"),
        tmpfs_mode=tmpfs.integer("Mode"),
        labels=volume.string_map("Labels"),
    )


def _healthcheck(f: Fields) -> Healthcheck | None:
    if not f.raw:
        return None
    return Healthcheck(
        test=f.strings("Test"),
        interval_ns=f.integer("Interval"),
        timeout_ns=f.integer("Timeout"),
        start_period_ns=f.integer("StartPeriod"),
        start_interval_ns=f.integer("StartInterval"),
        retries=f.integer("Retries"),
    )


def _endpoint(f: Fields) -> EndpointConfig:
    ipam = f.object("IPAMConfig")
    return EndpointConfig(
        ipv4_address=ipam.string("IPv4Address"),
        ipv6_address=ipam.string("IPv6Address"),
        mac_address=f.string("MacAddress"),
        aliases=f.strings("Aliases"),
        links=f.strings("Links"),
        driver_opts=f.string_map("DriverOpts"),
    )
