/* A stand-in for libcuda.so.1 with its C types, which fails on any argument that did not arrive as it was sent. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STREAM ((void *)0x7f1234567890)
#define GRAPH ((void *)0x7faaaaaaaaa0)
#define EXECUTABLE ((void *)0x7fbbbbbbbbb0)
#define BIG ((size_t)1 << 40)

static long context;

int cuInit(unsigned flags) { return flags != 0; }
int cuDriverGetVersion(int *version) { *version = 12040; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = 5; return ordinal != 0; }
int cuDeviceGetName(char *name, int size, int device) { snprintf(name, size, "Stub"); return device != 5; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? 8 : attribute == 76 ? 7 : -1;
    return device != 5;
}
int cuDevicePrimaryCtxRetain(void **result, int device) { *result = &context; return device != 5; }
int cuCtxSetCurrent(void *given) { return given != &context; }
int cuMemGetInfo_v2(size_t *free, size_t *total) { *free = BIG; *total = BIG + BIG; return 0; }
int cuMemAlloc_v2(unsigned long long *address, size_t size) {
    if (size > BIG) return 2;
    *address = (uintptr_t)malloc(size);
    return 0;
}
int cuMemFree_v2(unsigned long long address) { free((void *)(uintptr_t)address); return 0; }
int cuMemHostAlloc(void **address, size_t size, unsigned flags) { *address = malloc(size); return flags != 0; }
int cuMemFreeHost(void *address) { free(address); return 0; }
int cuMemcpyHtoDAsync_v2(unsigned long long to, const void *from, size_t size, void *stream) {
    memcpy((void *)(uintptr_t)to, from, size);
    return stream != STREAM;
}
int cuMemcpyDtoHAsync_v2(void *to, unsigned long long from, size_t size, void *stream) {
    memcpy(to, (void *)(uintptr_t)from, size);
    return stream != STREAM;
}
int cuMemsetD8Async(unsigned long long address, unsigned char value, size_t size, void *stream) {
    memset((void *)(uintptr_t)address, value, size);
    return stream != STREAM;
}
int cuStreamCreate(void **stream, unsigned flags) { *stream = STREAM; return flags != 1; }
int cuStreamSynchronize(void *stream) { return stream != STREAM; }
int cuStreamDestroy_v2(void *stream) { return stream != STREAM; }
int cuStreamBeginCapture_v2(void *stream, int mode) { return stream != STREAM || mode != 1; }
int cuStreamEndCapture(void *stream, void **graph) { *graph = GRAPH; return stream != STREAM; }
int cuGraphInstantiateWithFlags(void **executable, void *graph, unsigned long long flags) {
    *executable = EXECUTABLE;
    return graph != GRAPH || flags != 0;
}
int cuGraphDestroy(void *graph) { return graph != GRAPH; }
int cuGraphLaunch(void *executable, void *stream) { return executable != EXECUTABLE || stream != STREAM; }
int cuGraphExecDestroy(void *executable) { return executable != EXECUTABLE; }
int cuEventCreate(void **event, unsigned flags) { *event = malloc(8); return flags != 0; }
int cuEventRecord(void *event, void *stream) { return !event || stream != STREAM; }
int cuEventElapsedTime(float *elapsed, void *start, void *end) { *elapsed = 1.5f; return !start || !end; }
int cuEventDestroy_v2(void *event) { free(event); return 0; }
int cuGetErrorName(int result, const char **text) { *text = "CUDA_ERROR_STUB"; return result == 0; }
int cuGetErrorString(int result, const char **text) { *text = "not as expected"; return result == 0; }
