"""Load tests with Locust: users over HTTP and gRPC, and the verdict of `sluice loadtest`.

    locust -f loadtests/locustfile.py --headless --host http://127.0.0.1:8000 \
        --users 20 --run-time 1m --scenario loadtests/scenarios/steady.yaml

Without `--scenario` the users ask every ready model of the target, by its metadata. With it they
ask its `requests`, and its `slos` decide the exit code: 0 all met, 1 missed or the run says
nothing, 2 a wrong scenario or option, 3 the target does not answer.

Each user sends one request at a time, at random distances, `--user-rate` a second on average.
Latency counts from when a request was to be sent: an answer that is late makes its user's next
requests late, and they say so. Tags: `json`, `binary` (over HTTP), `grpc`.
"""

import os
import platform
import random
import sys
import time
from argparse import ArgumentTypeError
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gevent
import grpc
import grpc.experimental.gevent
import msgspec
from locust import FastHttpUser, User, events, tag, task
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner
from locust_calls import GrpcCaller, HttpCaller, Sent, Unusable, learn
from locust_record import Outcome, Seen, Span, result_of
from locust_traffic import Asked, Mix, Popularity, batch_sizes, weighted

