"""Cases of the alerts: series for which an alert fires, and similar ones for which it stays silent.

Series are in promtool's notation, one value a minute: `0+2x60` rises by 2, `5x10` stays at 5.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AlertCase:
    """One case. series: values by series; minutes: time of the evaluation; fires: whether the alert is firing then."""

    alert: str
    fires: bool
    series: dict[str, str]
    minutes: int = 60


FAILED, COMPLETED = 'stt_jobs_ended_total{status="FAILED"}', 'stt_jobs_ended_total{status="COMPLETED"}'
RETRIED, SUCCEEDED = 'stt_step_runs_total{outcome="retried"}', 'stt_step_runs_total{outcome="ok"}'
DEAD = 'stt_queue_messages{queue="stt_jobs_dlq"}'
CRASHES, TIMEOUTS = 'stt_engine_exits_total{reason="crash"}', 'stt_engine_exits_total{reason="timeout"}'
HEALTHY, SICK = 'stt_workers{state="healthy"}', 'stt_workers{state="sick"}'
FACTOR = "stt_job_real_time_factor_ratio_bucket"
ATTEMPTS = 'stt_webhook_attempts_total{outcome="%s"}'
DELIVERED, GIVEN_UP = ATTEMPTS % "delivered", ATTEMPTS % "given_up"
CALLS = 'stt_dependency_calls_total{dependency="%s",outcome="%s"}'
DOWN, ANSWERED = CALLS % ("database", "unavailable"), CALLS % ("database", "ok")
UP, ROUNDS = 'stt_dependency_up{dependency="database"}', 'stt_task_rounds_total{task="publish due rows"}'
CLEANED = 'stt_housekeeping_last_success_timestamp_seconds{step="expire jobs"}'
PARKED = 'stt_parked_items{step="collect"}'


def oldest(priority: str) -> str:
    return f'stt_queue_oldest_seconds{{queue="stt_chunks",priority="{priority}"}}'


CASES = (
    AlertCase("SttFailureRateHigh", True, {FAILED: "0+1x60", COMPLETED: "0+4x60"}),
    AlertCase("SttFailureRateHigh", False, {FAILED: "0+1x60", COMPLETED: "0+20x60"}),
    AlertCase("SttFailureRateHigh", False, {FAILED: "0x50 1x10", COMPLETED: "0x60"}),
    AlertCase("SttRetryRateHigh", True, {RETRIED: "0+3x60", SUCCEEDED: "0+7x60"}),
    AlertCase("SttRetryRateHigh", False, {RETRIED: "0+1x60", SUCCEEDED: "0+9x60"}),
    AlertCase("SttMeanRetriesHigh", True, {RETRIED: "0+2x120", COMPLETED: "0+1x120"}, 100),
    AlertCase("SttMeanRetriesHigh", False, {RETRIED: "0+1x120", COMPLETED: "0+1x120"}, 100),
    AlertCase("SttDeadLettersMany", True, {DEAD: "101x60"}),
    AlertCase("SttDeadLettersMany", False, {DEAD: "100x60"}),
    AlertCase("SttDeadLettersArriving", True, {FAILED: "0+1x60"}),
    AlertCase("SttDeadLettersArriving", False, {FAILED: "0+0.2x60"}),
    AlertCase("SttEngineCrashes", True, {CRASHES: "0x20 3x20 6x20"}),
    AlertCase("SttEngineCrashes", True, {"stt_lost_runs_total": "0+1x60"}),
    AlertCase("SttEngineCrashes", False, {CRASHES: "0x20 3x40", TIMEOUTS: "0+1x60"}),
    AlertCase("SttNoConsumer", True, {HEALTHY: "0x60"}),
    AlertCase("SttNoConsumer", False, {HEALTHY: "1x60"}),
    AlertCase("SttConsumerSick", True, {SICK: "1x60", HEALTHY: "2x60"}),
    AlertCase("SttConsumerSick", False, {SICK: "0x60", HEALTHY: "2x60"}),
    AlertCase(
        "SttRealTimeFactorHigh",
        True,
        {f'{FACTOR}{{le="1"}}': "0+8x60", f'{FACTOR}{{le="2"}}': "0+10x60", f'{FACTOR}{{le="+Inf"}}': "0+10x60"},
    ),
    AlertCase(
        "SttRealTimeFactorHigh",
        False,
        {f'{FACTOR}{{le="1"}}': "0+10x60", f'{FACTOR}{{le="2"}}': "0+10x60", f'{FACTOR}{{le="+Inf"}}': "0+10x60"},
    ),
    AlertCase("SttBacklogOld", True, {oldest("normal"): "0+60x60"}, 30),
    AlertCase("SttBacklogOld", True, {oldest("low"): "0+60x200"}, 180),
    AlertCase("SttBacklogOld", False, {oldest("low"): "1800x60", oldest("high"): "600x60"}),
    AlertCase("SttWebhooksFailing", True, {GIVEN_UP: "0+3x60", DELIVERED: "0+1x60"}),
    AlertCase("SttWebhooksFailing", False, {GIVEN_UP: "0+1x60", DELIVERED: "0+3x60"}),
    AlertCase(
        "SttDiskFull",
        True,
        {'stt_disk_free_bytes{folder="temp"}': "5x60", 'stt_disk_size_bytes{folder="temp"}': "100x60"},
    ),
    AlertCase(
        "SttDiskFull",
        False,
        {'stt_disk_free_bytes{folder="temp"}': "50x60", 'stt_disk_size_bytes{folder="temp"}': "100x60"},
    ),
    AlertCase("SttMemoryLow", True, {"stt_memory_available_bytes": "5x60", "stt_memory_limit_bytes": "100x60"}),
    AlertCase("SttMemoryLow", False, {"stt_memory_available_bytes": "50x60", "stt_memory_limit_bytes": "100x60"}),
    AlertCase("SttDependencyDown", True, {UP: "0x60"}),
    AlertCase("SttDependencyDown", False, {UP: "1x60"}),
    AlertCase("SttDatabaseCallsFailing", True, {DOWN: "0+1x60", ANSWERED: "0+9x60"}),
    AlertCase("SttDatabaseCallsFailing", False, {DOWN: "0+1x60", ANSWERED: "0+99x60"}),
    AlertCase("SttSchedulerMissing", True, {HEALTHY: "1x60"}),
    AlertCase("SttSchedulerMissing", True, {UP: "1x60", ROUNDS: "7x60"}),
    AlertCase("SttSchedulerMissing", False, {UP: "1x60", ROUNDS: "0+12x60"}),
    AlertCase("SttHousekeepingStuck", True, {CLEANED: "0x60"}),
    AlertCase("SttHousekeepingStuck", True, {PARKED: "30x60"}),
    AlertCase("SttHousekeepingStuck", False, {CLEANED: "0+60x60", PARKED: "3x60"}),
)
