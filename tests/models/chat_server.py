"""A server of chat completions: `chat_server.py LOG [FOLDER] [BEHAVIOUR ...]`; prints its port.

Each request takes the next behaviour, `ok` when none is left, and is appended to LOG as a line of JSON. Replies come
from the model in FOLDER, or tell what was asked when FOLDER is `-`.
"""

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def answer_of(folder: str):
    if folder == "-":
        return lambda asked: f"reply to {asked['messages'][-1]['content']}, seed {asked.get('seed')}"
    from mesocosm.models import load_pretrained

    model = load_pretrained(folder)

    def answer(asked):
        seeds = [asked["seed"]] if "seed" in asked else None
        options = {"stop": asked.get("stop", ()), "temperature": asked["temperature"], "seeds": seeds}
        return model.complete([asked["messages"]], asked["max_tokens"], **options)[0]

    return answer


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = self.headers.get("Authorization")
        with open(LOG, "a") as log:
            log.write(json.dumps({"path": self.path, "key": key, "asked": asked}) + "\n")
        behaviour, _, detail = (BEHAVIOURS.pop(0) if BEHAVIOURS else "ok").partition("=")
        message = {"role": "assistant", "content": ANSWER(asked) if behaviour == "ok" else None}
        usage = {"prompt_tokens": 7, "completion_tokens": 3}
        reply = {"model": "tiny", "choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}
        status, headers, body = 200, {}, json.dumps(reply).encode()
        if behaviour.isdigit():
            status, headers, body = int(behaviour), {"Retry-After": detail} if detail else {}, b'{"error": "no"}'
        elif behaviour == "redirect":
            status, headers = 302, {"Location": detail}
        elif behaviour == "malformed":
            body = b'{"choices": ['
        elif behaviour == "strange":
            body = detail.encode()
        elif behaviour == "echo":
            status, body = (
                int(detail),
                json.dumps({"error": f"wrong {key}", "choices": [{"message": {"content": key}}]}).encode(),
            )
        elif behaviour == "hang":
            time.sleep(3)
        elif behaviour == "drip":
            headers = {"Connection": "close"}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if behaviour != "drip":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            if behaviour == "cut":
                self.wfile.write(body[: len(body) // 2])
                self.connection.close()
            elif behaviour == "drip":
                for _ in range(30):
                    self.wfile.write(b" ")
                    self.wfile.flush()
                    time.sleep(0.1)
            else:
                self.wfile.write(body)
        except OSError:
            pass

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    _, LOG, FOLDER, *BEHAVIOURS = sys.argv
    ANSWER = answer_of(FOLDER)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
