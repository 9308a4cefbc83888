# Build a CMake project for two kinds of GPUs; with the argument run, run its program.
set -e
cp -r tests/project "${TMPDIR:-/tmp}/project"
cd "${TMPDIR:-/tmp}/project"
cmake -G Ninja -B build -DCMAKE_BUILD_TYPE=Release
cmake --build build
for kind in sm_80 sm_90; do
    grep -aq "$kind" build/product
done
echo "built for sm_80 and sm_90"
if [ "$1" = run ]; then
    build/product
fi
