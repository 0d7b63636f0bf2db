"""A worker: gets ready, which takes a while, and then counts words of texts that it is sent."""
import collections
import http.server
import json

ready = {"the", "a", "an", "and", "of", "in", "to"}  # stands for a model, an index, a warm cache


class Worker(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer({"ready": True})

    def do_POST(self):
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        words = (w.strip(".,;:").lower() for w in text.split())
        self.answer(collections.Counter(w for w in words if w and w not in ready))

    def answer(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


http.server.HTTPServer(("127.0.0.1", 9000), Worker).serve_forever()
