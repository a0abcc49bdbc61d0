"""HTTP/1.1 on the data port: bytes to a call, and an answer to bytes.

A request's way:

    listener.py           sockets, the sweep over idle connections, the drain
    arrival.py            before the first byte: served here, or given to a sibling
    connection.py flow.py
                          one client, one request at a time (read this first); its transport
    framing.py            what is well-formed
    request.py routes.py  what is asked
    inference.py          a body to a call, and back
    responses.py          how answers look
    state.py              what all connections of a listener share
"""
