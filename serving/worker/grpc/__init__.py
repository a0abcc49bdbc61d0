"""gRPC on the data port: the inference and health services.

A call's way:

    listener.py server.py the port, and which server carries the services
    inference.py call.py exchange.py stream.py
                          a message to a call (read `inference` first), and back
    health.py             grpc.health.v1
    native.py native_call.py
                          the services on pygrpc_native's front, without a task for a call
    goaway.py sockets.py  leaving without a client noticing
"""
