"""A suspect behind an address: serve a thief on this machine, ask him over HTTP, and once more by a table of answers."""

import json
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import torch

import modelward as mw
from modelward.cli.main import main
from modelward.keys import write_key

model, data = mw.embedded_model().model, mw.study(mw.load_data("fashion-mini"))
folder = Path(tempfile.mkdtemp())

# The owner's side: a key with few probes, since a service may count what it is asked.
siblings = mw.siblings(mw.Recipe(epochs=15, lr=0.05, batch=64), data.owner, 19, model=model, base="none")
_, key = mw.SACJC(count=600).protect(model, data.probes, siblings=siblings, rng=mw.generator(0))
write_key(folder / "owner.mw", key)

# The thief's side: a fine-tuned copy behind an address.
thief = mw.FTAL().steal(mw.AttackerView.of_model(model, data.attacker), rng=mw.generator(1)).model


class Service(BaseHTTPRequestHandler):
    """Answers {"instances": [...]} with {"predictions": [[p0, ...], ...]}."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with torch.no_grad():
            answers = thief(torch.tensor(body["instances"])).softmax(1)
        reply = json.dumps({"predictions": answers.tolist()}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
threading.Thread(target=server.serve_forever, daemon=True).start()

# The same in the shell: modelward verify http://... --key owner.mw --budget 700 --resume answers.jsonl
address = f"http://127.0.0.1:{server.server_address[1]}/predict"
asked = main(["verify", address, "--key", str(folder / "owner.mw"), "--budget", "700", "--resume", str(folder / "answers.json")])

# Where no program may ask: write the probes as images, have them answered by hand, and judge the table.
main(["probes", str(folder / "owner.mw"), "--out", str(folder / "probes"), "--quiet"])
pixels = key.tensors["probes"]
with torch.no_grad():
    labels = thief(pixels.float() / 255).argmax(1).tolist()
lines = ["file,label", *(f"{index:05d}.png,{label}" for index, label in enumerate(labels))]
(folder / "answers.csv").write_text("\n".join(lines))
by_hand = main(["verify", str(folder / "answers.csv"), "--key", str(folder / "owner.mw")])
server.shutdown()
server.server_close()
print("exit codes:", asked, by_hand)
