"""The admin port.

application.py server.py
                      operations become an application, and who serves it
operations.py openapi.py access.py
                      how a call goes: routed, authorised, documented (read `operations.py` first)
routes/               the endpoints, by subject
questions.py answers.py overview.py
                      bodies, and how they come about
pages.py              for people
"""
