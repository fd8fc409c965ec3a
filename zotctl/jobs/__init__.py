"""The jobs: functions over a store. Each may run at any moment beside any number of servers and other jobs."""
