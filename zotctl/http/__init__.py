"""The registry's HTTP side: OCI Distribution over HTTP/1.1. The only package that knows of sockets.

`supervisor.run` is the whole of `zotctl serve` behind its configuration, `protocol` a connection, `service` the way of
a request to its answer, and `routes` the table of endpoints.
Nothing is imported here: a command that serves nothing must not pay for it.
"""
