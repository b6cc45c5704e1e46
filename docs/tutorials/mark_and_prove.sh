set -e
# mark a copy of the model; the key is weighed against keys of other secrets
modelward protect zhang --out-key owner.mw --out-model published.safetensors
# fix the day before the model is published; a time-stamping authority is better evidence than a publication
modelward commit owner.mw --out owner.commitment.json --publication "Official Gazette 12/2026, page 3" --published 2026-11-02
# a thief fine-tunes what was published
modelward steal ftal --model published.safetensors --out-model suspect.safetensors --quiet
# without the commitment the key decides nothing: exit code 3
modelward verify suspect.safetensors --key owner.mw --quiet || test $? -eq 3
# with it: stolen, exit code 1, and a bundle that somebody else can check
modelward evidence keygen --out signer
modelward verify suspect.safetensors --key owner.mw --commitment owner.commitment.json --released 2026-11-16 \
  --evidence case.bundle --signing-key signer || test $? -eq 1
# on another machine, with the public key, and the day on which the checker first saw the suspect
modelward evidence check case.bundle --trusted-key signer.pub.pem --released 2026-11-16 || test $? -eq 1
