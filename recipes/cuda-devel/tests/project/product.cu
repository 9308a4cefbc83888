// Multiply matrices on the GPU, and compare with the processor's result.
#include <cmath>
#include <cstdio>
#include <vector>

#define CHECK(call)                                                                              \
    do {                                                                                         \
        cudaError_t status = (call);                                                             \
        if (status != cudaSuccess) return std::printf("%s\n", cudaGetErrorString(status)), 1;    \
    } while (0)

constexpr int N = 256;

__global__ void product(const float *left, const float *right, float *found) {
    int row = blockIdx.y * blockDim.y + threadIdx.y, column = blockIdx.x * blockDim.x + threadIdx.x;
    float sum = 0;
    for (int k = 0; k < N; k++) sum += left[row * N + k] * right[k * N + column];
    found[row * N + column] = sum;
}

int main() {
    std::vector<float> left(N * N), right(N * N), found(N * N);
    for (int i = 0; i < N * N; i++) left[i] = std::sin(i), right[i] = std::cos(i);
    float *a, *b, *c;
    size_t size = N * N * sizeof(float);
    CHECK(cudaMalloc(&a, size));
    CHECK(cudaMalloc(&b, size));
    CHECK(cudaMalloc(&c, size));
    CHECK(cudaMemcpy(a, left.data(), size, cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(b, right.data(), size, cudaMemcpyHostToDevice));
    product<<<dim3(N / 16, N / 16), dim3(16, 16)>>>(a, b, c);
    CHECK(cudaGetLastError());
    CHECK(cudaMemcpy(found.data(), c, size, cudaMemcpyDeviceToHost));
    for (int row = 0; row < N; row += 51) {
        double sum = 0;
        for (int k = 0; k < N; k++) sum += double(left[row * N + k]) * right[k * N + row];
        if (std::fabs(sum - found[row * N + row]) > 1e-2) return std::printf("wrong at %d\n", row), 1;
    }
    cudaDeviceProp device;
    CHECK(cudaGetDeviceProperties(&device, 0));
    std::printf("right on %s\n", device.name);
}
