# Compute with one thread and with two; the results are the same to the last digit.
set -e
one=$(OMP_NUM_THREADS=1 heat 101 500)
two=$(OMP_NUM_THREADS=2 heat 101 500)
test "$one" = "$two"
echo "same: $one"
