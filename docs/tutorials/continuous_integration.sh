set -e
# what would be done, without doing it
modelward audit --plan plan.yaml --dry-run
# the audit; exit code 1 when a check fails or a condition is met
modelward audit --plan plan.yaml --out report --junit report/junit.xml
# the same again reads every finished cell from the store
modelward audit --plan plan.yaml --out report --fail-if "corrupted_acc < .6" --quiet
