"""Names of tasks, and numbers that the publisher of a task and the schedule share."""

from __future__ import annotations

#: Ids of one deliver task: enough to pay Celery's cost once, few enough to spread over threads.
IDS_PER_TASK = 100
#: Deadline of publishing one task, its confirmation included. Seconds.
PUBLISH_SECONDS = 5
#: Beat wakes the sweep so often. Seconds.
TICK_SECONDS = 1.0
#: RabbitMQ drops a tick that nobody took within this long: the next one does the same. Seconds.
TICK_EXPIRES_SECONDS, MINUTE_EXPIRES_SECONDS, DAILY_EXPIRES_SECONDS = 10, 60, 3600

DELIVER, RECONCILE, DISPATCH = "notifier.deliver", "notifier.reconcile", "notifier.dispatch_due"
CALL_BACK = "notifier.call_back"
PARTITIONS, STATISTICS = "notifier.ensure_partitions", "notifier.log_statistics"
HEARTBEATS = "notifier.send_heartbeats"
RETENTION, LATE_UPKEEP = "notifier.retention", "notifier.run_late_upkeep"
RECURRING = "notifier.send_recurring"
