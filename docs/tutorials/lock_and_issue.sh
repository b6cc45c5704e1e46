set -e
# lock the model: hand out locked.safetensors, keep owner.mw
modelward lock advparams --out-key owner.mw --out-model locked.safetensors
# what a thief gets who fine-tunes the locked file on images of his own, beside training from scratch on them
modelward steal ftal --model locked.safetensors --set images=30 --set epochs=10 --set batch=16 --out-model thief.safetensors
# a key for every user; the registry says until when each holds, and holds no secret
modelward key new-master --out master.json
printf 'user,expires\nann,2099-12-31\nbob,\n' > users.csv
modelward issue advparams --csv users.csv --key owner.mw --model locked.safetensors
# ann opens the model, byte for byte
modelward unlock --model locked.safetensors --key keys/ann.advparams.mw --registry registry.sqlite --out-model opened.safetensors
# bob is revoked: exit code 2, nothing is written
modelward revoke bob
modelward unlock --model locked.safetensors --key keys/bob.advparams.mw --registry registry.sqlite --out-model refused.safetensors || test $? -eq 2
test ! -e refused.safetensors
# a key was found somewhere: whose is it? exit code 1, somebody is named
modelward trace keys/bob.advparams.mw --method advparams --master master.json || test $? -eq 1
