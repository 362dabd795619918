"""Names of tasks, and numbers that both the publisher of a task and the schedule use."""

from __future__ import annotations

#: Maximum ids of one deliver task: enough to pay Celery's cost once, few enough to spread over threads.
IDS_PER_TASK = 100
#: Deadline of publishing one task, including the confirmation. Seconds.
PUBLISH_SECONDS = 5
#: How often Beat triggers the sweep. Seconds.
TICK_SECONDS = 1.0
#: RabbitMQ drops a tick that nobody took within this time; the next tick does the same. Seconds.
TICK_EXPIRES_SECONDS, MINUTE_EXPIRES_SECONDS, DAILY_EXPIRES_SECONDS = 10, 60, 3600

DELIVER, RECONCILE, DISPATCH = "notifier.deliver", "notifier.reconcile", "notifier.dispatch_due"
CALL_BACK, RUN_JOB = "notifier.call_back", "notifier.run_job"
PARTITIONS, STATISTICS = "notifier.ensure_partitions", "notifier.log_statistics"
HEARTBEATS = "notifier.send_heartbeats"
RETENTION, LATE_UPKEEP = "notifier.retention", "notifier.run_late_upkeep"
RECURRING = "notifier.send_recurring"
