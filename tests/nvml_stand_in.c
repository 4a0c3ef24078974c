/* A stand-in for NVIDIA's libnvidia-ml.so.1: one card whose energy counter runs at 50 W, slowed down by heat. The functions and their
 * arguments are those of nvml.h; a card is at hand nowhere in these tests. NVML_STAND_IN=nocounter leaves out the energy counter (as
 * before Volta), =lost makes the card vanish after it was opened. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct { unsigned long long total, free, used; } memory_t;
static int is_mode(const char *name) { const char *mode = getenv("NVML_STAND_IN"); return mode && !strcmp(mode, name); }
static int lost(void) { return is_mode("lost") ? 15 : 0; }  /* NVML_ERROR_GPU_IS_LOST */

int nvmlInitWithFlags(unsigned flags) { (void)flags; return is_mode("nodriver") ? 9 : 0; }  /* NVML_ERROR_DRIVER_NOT_LOADED */
int nvmlShutdown(void) { return 0; }
int nvmlSystemGetDriverVersion(char *text, unsigned size) { strncpy(text, "555.42.02", size); return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 1; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = (void *)(size_t)(index + 1); return 0; }
int nvmlDeviceGetName(void *device, char *name, unsigned size) { (void)device; strncpy(name, "Stand-in 8 GB", size); return 0; }
int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts) { (void)device; *milliwatts = 50000; return lost(); }
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *millijoules) {
    struct timespec now;
    (void)device;
    if (is_mode("nocounter")) return 3;  /* NVML_ERROR_NOT_SUPPORTED */
    clock_gettime(CLOCK_MONOTONIC, &now);
    *millijoules = (unsigned long long)((now.tv_sec % 100000) * 50000.0 + now.tv_nsec * 5e-5);
    return lost();
}
int nvmlDeviceGetClockInfo(void *device, int type, unsigned *mhz) { (void)device; *mhz = type == 1 ? 1410 : 0; return lost(); }
int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *celsius) { (void)device; (void)sensor; *celsius = 83; return lost(); }
int nvmlDeviceGetMemoryInfo(void *device, memory_t *memory) {
    (void)device;
    memory->total = 8ULL << 30, memory->used = 6ULL << 30, memory->free = 2ULL << 30;
    return lost();
}
int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *reasons) {
    (void)device;
    *reasons = 0x20 | 0x1;  /* temperature, and idle, which is no throttling */
    return lost();
}
const char *nvmlErrorString(int code) { return code == 9 ? "Driver Not Loaded" : "some error"; }
