"""The jobs: functions over storage, each safe at any moment beside any server and any other job."""
