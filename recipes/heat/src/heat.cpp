// Temperature of a square plate with one hot side: Jacobi steps until little changes. Usage: heat SIZE MOST_STEPS
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <utility>
#include <vector>

int main(int argc, char **argv) {
    const int size = argc > 1 ? std::atoi(argv[1]) : 64, most = argc > 2 ? std::atoi(argv[2]) : 2000;
    if (size < 3 || size > 10000 || most < 1) return std::fprintf(stderr, "usage: heat SIZE MOST_STEPS\n"), 2;
    std::vector<double> now(static_cast<size_t>(size) * size), next;
    std::fill(now.begin(), now.begin() + size, 100.0);
    next = now;
    int step = 0;
    double change = 1;
    for (; step < most && change > 1e-6; step++, std::swap(now, next)) {
        change = 0;
#pragma omp parallel for reduction(max : change)
        for (int row = 1; row < size - 1; row++)
            for (int column = 1; column < size - 1; column++) {
                const size_t at = static_cast<size_t>(row) * size + column;
                next[at] = (now[at - size] + now[at + size] + now[at - 1] + now[at + 1]) / 4;
                change = std::max(change, std::fabs(next[at] - now[at]));
            }
    }
    std::printf("%d steps, %.3f degrees in the middle\n", step, now[static_cast<size_t>(size / 2) * size + size / 2]);
}
