"""The way from the façade to a core: in this process, over ZeroMQ to another one, through Ray to another machine.

`client` is the contract; `inproc`, `zmq` and `ray` are the transports.
"""
