"""Was this model stolen? Enrol, make two suspects, verify both."""

import modelward as mw

# Your model, and images in four disjoint parts: the owner's, a thief's, probes for the key, and a test set.
model, data = mw.embedded_model().model, mw.study(mw.load_data("fashion-mini"))

# Siblings, trained once and kept: the same training on the same images with other seeds. Thefts of five more tell how many thieves would be missed.
recipe = mw.Recipe(epochs=15, lr=0.05, batch=64)
siblings = mw.siblings(recipe, data.owner, 19, model=model, base="none", thief_images=data.attacker, test=data.test)
_, key = mw.SACJC().protect(model, data.probes, siblings=siblings, rng=mw.generator(0))

# A thief prunes a third of the weights and hides behind JPEG compression.
view = mw.AttackerView.of_model(model, data.attacker)
thief = mw.Prune(sparsity=0.33).steal(view, rng=mw.generator(1)).model
print("thief:   ", mw.SACJC().verify(thief, key))

# The same thief behind an interface that answers with labels only: the verdict uses less, and says so.
remote = mw.Suspect.of_model(thief, access="label")
print("by label:", mw.SACJC().verify(remote, key))

# Somebody who trained on his own images.
stranger = mw.build("lenet5", classes=10, rng=mw.generator(7))
mw.fit(stranger, data.attacker.pixels, data.attacker.labels, recipe, rng=mw.generator(8))
print("stranger:", mw.SACJC().verify(stranger, key))
