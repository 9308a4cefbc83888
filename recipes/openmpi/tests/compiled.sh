# Compile a program with the image's wrapper, and run it with two processes.
set -e
cp tests/reduce.c "${TMPDIR:-/tmp}/reduce.c"
cd "${TMPDIR:-/tmp}"
mpicc -O2 -o reduce reduce.c
mpirun -n 2 --oversubscribe ./reduce
