"""Deterministic models of other stacks, as each writes its series: OCUDU with its Telegraf, and Open5GS.

The daily life is that of `simulators.edge`; nodes/ocudu.md and nodes/open5gs.md say what the series mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from nodes.metrics import CPU_SECONDS, MEMORY_FREE, MEMORY_TOTAL, RECEIVED, TRANSMITTED
from nodes.node import DEFAULT_NODE
from nodes.series import RECORD_SECONDS, Record
from simulators.edge import Attack, between, drift, gnb_life, simulate

# What a jammer of the uplink and a storm of registrations are called as kinds of an Attack.
JAMMER, STORM = "jammer", "storm"
# OCUDU reports so many times in a record's time.
REPORTS = 15
FIRST_RNTI = 17921
# The address at which each function of Open5GS has its metrics, and the interface of its user plane.
AMF, SMF, UPF = "127.0.0.5:9090", "127.0.0.4:9090", "127.0.0.7:9090"
OGSTUN = "ogstun"
# Registration requests a second in a storm of them.
STORM_REQUESTS = 4.0


def node_exporter(samples: Record, interface: str) -> Record:
    """The series of the node exporter alone, on a host with one interface of this name."""
    kept: Record = {name: samples[name] for name in (CPU_SECONDS, MEMORY_FREE, MEMORY_TOTAL)}
    for name in (RECEIVED, TRANSMITTED):
        kept[name] = [
            {**point, "device": interface}
            for point in samples[name]
            if point["device"] == DEFAULT_NODE.interfaces[0]
        ]
    return kept


def ocudu_lines(seed: int, start: float, seconds: float, attacks: Iterable[Attack] = ()) -> Iterator[str]:
    """Lines of InfluxDB's protocol, as Telegraf writes them for a gNB with one cell: one report a second.

    UEs come and go, and there are times without any. A jammer takes the signal of the UEs.
    """
    records = int(seconds / RECORD_SECONDS)
    count = records * REPORTS
    life = {key: np.repeat(values, REPORTS) for key, values in gnb_life(seed, records).items()}
    rng = np.random.default_rng(seed)
    times = start + (np.arange(count) + 0.1) * RECORD_SECONDS / REPORTS
    attached = life["down"] > 0
    # Who attaches again has another RNTI.
    rnti = FIRST_RNTI + np.cumsum(np.diff(attached, prepend=False) & attached)
    jammed = np.zeros(count, dtype=bool)
    for attack in attacks:
        jammed |= (times >= attack.start) & (times < attack.end) & (attack.kind == JAMMER)
    noise = rng.gamma(200, 1 / 200, count)
    down, up = (life[key] * noise * 8 / RECORD_SECONDS for key in ("down", "up"))
    up = up * np.where(jammed, 0.4, 1.0)
    usual_snr = 24 + drift(rng, count, 3000) + rng.normal(0, 0.7, count)
    snr = np.where(jammed, rng.uniform(-3, 1, count), usual_snr)
    failed = rng.poisson(np.where(jammed, 60.0, 1.5))
    busy = life["rx"] - life["rx"].min()
    cpu = 120 + 35 * busy + rng.normal(0, 1.5, count)
    memory = between(1060 + 4 * drift(rng, count, 6000) + rng.normal(0, 0.3, count), 1040, 1080)
    latency = 3.0 + 0.8 * busy + rng.normal(0, 0.1, count)
    for i in range(count):
        ns = int(np.round(times[i] * 1e3)) * 1_000_000
        yield (f"cell,host=default pci=1,average_latency={latency[i]:.3f},max_latency=41,msg3_nof_nok=0 {ns}")
        yield (
            f"app_resource_usage,host=default cpu_usage_percent={cpu[i]:.3f},memory_usage_mb={memory[i]:.3f},"
            f"power_consumption_watts=0 {ns + 400_000_000}"
        )
        if not attached[i]:
            continue
        # Two UEs share the cell. The second one sends nothing in some seconds, and then has no SNR.
        for ue, (share, is_sending) in enumerate(((0.7, True), (0.3, i % 4 > 0))):
            signal = f"pusch_snr_db={snr[i] - 3 * ue:.2f}," if is_sending else ""
            yield (
                f"ue,host=default,pci=1,rnti={rnti[i] + 1000 * ue} dl_brate={down[i] * share:.0f},"
                f"ul_brate={up[i] * share:.0f},{signal}ul_nof_nok={failed[i] if ue == 0 else 0} {ns}"
            )


def open5gs(seed: int, start: float, seconds: float, attacks: Iterable[Attack] = ()) -> Record:
    """Samples as Prometheus stores them, of the functions of a core and of the node exporter of its host.

    A storm of registrations that fail leaves UEs at the AMF, but no session. Other attacks are those on the
    host. The UPF counts no packets, as it does unless it is told to.
    """
    attacks = tuple(attacks)
    samples = node_exporter(simulate(seed, start, seconds, attacks), OGSTUN)
    count = int(seconds / RECORD_SECONDS)
    rng = np.random.default_rng(seed)
    times = start + (np.arange(count) + 0.4) * RECORD_SECONDS
    ues = np.round(between(6 + 2.5 * drift(rng, count, 60), 1, 12))
    come = np.maximum(np.diff(ues, prepend=ues[0]), 0) + rng.poisson(0.15, count)
    storm = np.zeros(count, dtype=bool)
    for attack in attacks:
        storm |= (times >= attack.start) & (times < attack.end) & (attack.kind == STORM)
    requests = come + (rng.random(count) < 0.02) + storm * rng.poisson(STORM_REQUESTS * RECORD_SECONDS, count)
    nothing = np.zeros(count)
    for measurement, instance, values in (
        ("ran_ue", AMF, ues + storm * rng.integers(20, 30, count)),
        ("fivegs_amffunction_rm_reginitreq", AMF, np.cumsum(requests)),
        ("fivegs_amffunction_rm_reginitsucc", AMF, np.cumsum(come)),
        ("fivegs_smffunction_sm_n4sessionestabreq", SMF, np.cumsum(come)),
        ("fivegs_upffunction_upf_sessionnbr", UPF, ues),
        ("fivegs_ep_n3_gtp_indatapktn3upf", UPF, nothing),
        ("fivegs_ep_n3_gtp_outdatapktn3upf", UPF, nothing),
    ):
        tags = {"instance": instance, "job": "open5gs"}
        samples[measurement] = [
            {"time": round(time * 1e3) * 1_000_000, "value": float(value), **tags}
            for time, value in zip(times, values, strict=True)
        ]
    return samples
