"""An agent as small as can be: it takes frames of the tether and answers each message.

It has a page on port 8000, too. See docs/design/0014-guests-talk-to-the-host.md.
"""
import http.server
import json
import threading
import urllib.request


class Tether(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        frame = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()
        if frame["type"] == "user.message":
            answer(frame)


def answer(frame):
    text = "you said: " + frame["payload"]["text"]
    body = json.dumps({
        "v": 1, "type": "assistant.done", "ts": frame["ts"], "session": frame["session"],
        "msg_id": "answer-to-" + frame["msg_id"], "payload": {"text": text, "reply_to": frame["msg_id"]},
    }).encode()
    request = urllib.request.Request("http://127.0.0.1:7777/v1/tether/send", body, {"Content-Type": "application/json"})
    urllib.request.urlopen(request, timeout=30).close()


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello from the VM\n")


page = http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Page)
threading.Thread(target=page.serve_forever, daemon=True).start()
tether = http.server.HTTPServer(("127.0.0.1", 7778), Tether)
print("listening", flush=True)
tether.serve_forever()
