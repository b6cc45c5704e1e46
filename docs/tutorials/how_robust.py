"""How robust is it? Several attacks, their null control, and the signs that a number cannot be trusted."""

import modelward as mw

model, images = mw.embedded_model().model, mw.load_data("fashion-mini").test.take(slice(0, 128))
x, y = images.batch(slice(None)), images.labels

for attack in (mw.RandomNoise(eps=8 / 255), mw.FGSM(eps=8 / 255), mw.PGD(eps=8 / 255), mw.PGD(eps=8 / 255, loss="margin")):
    result = attack.run(model, x, y, rng=mw.generator(0))
    accuracy = float((model(result.value).argmax(1) == y).float().mean())
    name = attack.card.name + (" margin" if getattr(attack, "loss", "ce") == "margin" else "")
    print(f"{name:12} accuracy {accuracy:.2f}  queries {result.queries:5}  {'; '.join(result.flags) or 'no flags'}")
