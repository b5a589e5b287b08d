"""Front ends and engines as processes of their own, looked after by the one that started them.

Data flow::

    client ──HTTP──▶ front end ──Ask──▶ engine ──▶ LocalEngine
                       │   ▲               │
           pixels in shared memory     Answer, State          both: one Wire each to the parent

A front end decodes and validates; `RemoteEngine` there is an `Engine` like any other. An engine process owns
one device and serves a `LocalEngine` to all front ends. The parent owns the sockets and the shared memory,
starts all others, replaces those that die, and ends them.
"""
