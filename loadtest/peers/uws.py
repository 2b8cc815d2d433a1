"""A peer for `loadtest compare`: every byte of a WebSocket message to /publish is one message to all viewers.

python uws.py PORT BYTES
"""

import json
import sys

from socketify import App, OpCode

port, length = (int(text) for text in sys.argv[1:])
# As long as asked for, and of the shape that a broker's results have.
empty = len(json.dumps({"type": "result", "data": ""}, separators=(",", ":")))
message = json.dumps({"type": "result", "data": "x" * max(0, length - empty)}, separators=(",", ":")).encode()

app = App()


def publish(publisher, due, opcode):
    for _ in due:
        app.publish("viewers", message, OpCode.TEXT)


# A viewer who is behind misses nothing: by default what lies above 64 KiB is thrown away.
app.ws("/publish", {"compression": 0, "message": publish})
app.ws(
    "/*",
    {
        "compression": 0,
        "max_backpressure": 256 << 20,
        "open": lambda viewer: viewer.subscribe("viewers"),
    },
)
app.listen({"port": port, "host": "127.0.0.1"})
# Not app.run(), whose loop in Python looks for work again and again instead of sleeping.
app.loop.uv_loop.run()
