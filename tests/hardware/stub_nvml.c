/* A pretend libnvidia-ml.so for the tests: plays GPUs from the trace file named by STUB_NVML_TRACE, at the time set by stub_set_time_ms;
   where STUB_NVML_NOW is set, at the time since the library was initialised.

   Lines of a trace (device numbers from 0, times in ms, powers in mW):
     devices N                      number of GPUs (at most 16)
     power DEV T MW                 power curve, straight between its points, in order of time
     lost DEV FROM TO               every call to it fails with NVML_ERROR_GPU_IS_LOST
     frozen DEV FROM TO             its energy counter stands still
     reset DEV AT                   its energy counter begins again at 0
     zero DEV FROM TO               its power reads 0
     throttle DEV FROM TO MASK      clocks event reasons
     process DEV FROM TO PID BYTES  a compute process
     silent DEV FROM TO PID BYTES   one whose memory the driver tells as 0
     unlisted DEV FROM TO 0 BYTES   one that the driver does not list
     mig DEV | vgpu DEV | module DEV | nomemory DEV | nocounter DEV | oldpower DEV | oldreasons DEV

   The energy counter is the exact integral of the curve, known only at multiples of 100 ms, as on real boards. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_DEVICES 16
#define MAX_POINTS 4096
#define MAX_EVENTS 256
#define SUCCESS 0
#define INVALID_ARGUMENT 2
#define NOT_SUPPORTED 3
#define INSUFFICIENT_SIZE 7
#define GPU_IS_LOST 15
#define POWER_INSTANT 186
#define MEMORY_TEMP 82
#define COUNTER_STEP_MS 100.0

typedef struct { double t, mw, mj; } Point;
typedef struct { char kind[16]; int dev; double from, to; unsigned long long a, b; } Event;
typedef struct { int index; int n; Point curve[MAX_POINTS]; } Device;
typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned gpu, memory; } Utilization;
typedef struct { unsigned pid; unsigned long long bytes; unsigned gpu_instance, compute_instance; } ProcessInfo;
typedef struct {
    unsigned field, scope;
    long long timestamp, latency;
    int type, status;
    union { double d; unsigned u; unsigned long long ull; } value;
} FieldValue;

static Device devices[MAX_DEVICES];
static Event events[MAX_EVENTS];
static int device_count, event_count;
static double now_ms, begun_ms;

void stub_set_time_ms(double ms) { now_ms = ms; }

static double clock_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static void look_at_the_clock(void) {
    if (getenv("STUB_NVML_NOW")) now_ms = clock_ms() - begun_ms;
}

static void add_point(int dev, double t, double mw) {
    Device *d = &devices[dev];
    Point *p = &d->curve[d->n++];
    p->t = t; p->mw = mw;
    p->mj = d->n == 1 ? 0.0 : p[-1].mj + (t - p[-1].t) / 1000.0 * (mw + p[-1].mw) / 2.0;
}

static int load(void) {
    const char *path = getenv("STUB_NVML_TRACE");
    char line[256], kind[16];
    FILE *file = path ? fopen(path, "r") : NULL;
    if (!file) return 0;
    device_count = event_count = 0;
    for (int i = 0; i < MAX_DEVICES; i++) { devices[i].index = i; devices[i].n = 0; }
    while (fgets(line, sizeof line, file)) {
        double x = 0, y = 0;
        unsigned long long a = 0, b = 0;
        int dev = 0;
        if (sscanf(line, "%15s %d", kind, &dev) < 1 || kind[0] == '#') continue;
        if (!strcmp(kind, "devices")) { device_count = dev; continue; }
        sscanf(line, "%*s %*d %lf %lf %llu %llu", &x, &y, &a, &b);
        if (!strcmp(kind, "power")) { add_point(dev, x, y); continue; }
        Event *e = &events[event_count++];
        strcpy(e->kind, kind);
        e->dev = dev; e->from = x; e->to = y; e->a = a; e->b = b;
    }
    fclose(file);
    begun_ms = clock_ms();
    return 1;
}

static const Event *during(const Device *d, const char *kind) {
    for (int i = 0; i < event_count; i++)
        if (events[i].dev == d->index && !strcmp(events[i].kind, kind) && now_ms >= events[i].from && now_ms < events[i].to)
            return &events[i];
    return NULL;
}

static int marked(const Device *d, const char *kind) {
    for (int i = 0; i < event_count; i++)
        if (events[i].dev == d->index && !strcmp(events[i].kind, kind)) return 1;
    return 0;
}

static double power_at(const Device *d, double t) {
    if (t <= d->curve[0].t) return d->curve[0].mw;
    for (int i = 1; i < d->n; i++)
        if (t <= d->curve[i].t) {
            const Point *a = &d->curve[i - 1], *b = &d->curve[i];
            return a->mw + (b->mw - a->mw) * (t - a->t) / (b->t - a->t);
        }
    return d->curve[d->n - 1].mw;
}

static double energy_at(const Device *d, double t) {
    for (int i = 1; i < d->n; i++)
        if (t <= d->curve[i].t) {
            const Point *a = &d->curve[i - 1];
            return a->mj + (t - a->t) / 1000.0 * (a->mw + power_at(d, t)) / 2.0;
        }
    const Point *last = &d->curve[d->n - 1];
    return last->mj + (t - last->t) / 1000.0 * last->mw;
}

static double counter(const Device *d) {
    const Event *frozen = during(d, "frozen");
    double t = frozen ? frozen->from : now_ms, start = 1e9; /* mJ since the driver was loaded */
    t = COUNTER_STEP_MS * (long long)(t / COUNTER_STEP_MS);
    for (int i = 0; i < event_count; i++)
        if (events[i].dev == d->index && !strcmp(events[i].kind, "reset") && now_ms >= events[i].from)
            start = -energy_at(d, events[i].from);
    return start + energy_at(d, t);
}

#define CHECK(d) do { look_at_the_clock(); if (during((d), "lost")) return GPU_IS_LOST; } while (0)

int nvmlInitWithFlags(unsigned flags) { (void)flags; return load() ? SUCCESS : 9; }
int nvmlShutdown(void) { return SUCCESS; }
int nvmlSystemGetDriverVersion(char *out, unsigned n) { snprintf(out, n, "570.00"); return SUCCESS; }
int nvmlSystemGetCudaDriverVersion(int *out) { *out = 12080; return SUCCESS; }
int nvmlDeviceGetCount_v2(unsigned *out) { *out = device_count; return SUCCESS; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, Device **out) {
    if ((int)i >= device_count) return INVALID_ARGUMENT;
    *out = &devices[i];
    return SUCCESS;
}
int nvmlDeviceGetUUID(Device *d, char *out, unsigned n) { CHECK(d); snprintf(out, n, "GPU-stub-%04d", d->index); return SUCCESS; }
int nvmlDeviceGetName(Device *d, char *out, unsigned n) { CHECK(d); snprintf(out, n, "NVIDIA H100 80GB HBM3"); return SUCCESS; }
int nvmlDeviceGetVbiosVersion(Device *d, char *out, unsigned n) { CHECK(d); snprintf(out, n, "96.00.89.00.01"); return SUCCESS; }
int nvmlDeviceGetMigMode(Device *d, unsigned *now, unsigned *pending) { CHECK(d); *now = *pending = marked(d, "mig"); return SUCCESS; }
int nvmlDeviceGetMaxMigDeviceCount(Device *d, unsigned *out) { CHECK(d); *out = marked(d, "mig") ? 2 : 0; return SUCCESS; }
int nvmlDeviceGetMigDeviceHandleByIndex(Device *d, unsigned i, Device **out) { CHECK(d); *out = &devices[(d->index + i) % MAX_DEVICES]; return SUCCESS; }
int nvmlDeviceGetVirtualizationMode(Device *d, int *out) { CHECK(d); *out = marked(d, "vgpu") ? 2 : 0; return SUCCESS; }
int nvmlDeviceGetPersistenceMode(Device *d, int *out) { CHECK(d); *out = 1; return SUCCESS; }
int nvmlDeviceGetEccMode(Device *d, int *now, int *pending) { CHECK(d); *now = *pending = 1; return SUCCESS; }
int nvmlDeviceGetMaxPcieLinkGeneration(Device *d, unsigned *out) { CHECK(d); *out = 5; return SUCCESS; }
int nvmlDeviceGetCurrPcieLinkWidth(Device *d, unsigned *out) { CHECK(d); *out = 16; return SUCCESS; }
int nvmlDeviceGetEnforcedPowerLimit(Device *d, unsigned *out) { CHECK(d); *out = 700000; return SUCCESS; }
int nvmlDeviceGetPowerManagementDefaultLimit(Device *d, unsigned *out) { CHECK(d); *out = 700000; return SUCCESS; }
int nvmlDeviceGetTemperature(Device *d, int sensor, unsigned *out) { CHECK(d); (void)sensor; *out = 55; return SUCCESS; }
int nvmlDeviceGetClockInfo(Device *d, int type, unsigned *out) { CHECK(d); *out = type == 1 ? 1980 : 2619; return SUCCESS; }
int nvmlDeviceGetUtilizationRates(Device *d, Utilization *out) { CHECK(d); out->gpu = 97; out->memory = 40; return SUCCESS; }
int nvmlDeviceGetTotalEccErrors(Device *d, int type, int counter_type, unsigned long long *out) {
    CHECK(d); (void)type; (void)counter_type; *out = 0; return SUCCESS;
}
int nvmlDeviceGetApplicationsClock(Device *d, int type, unsigned *out) { CHECK(d); (void)type; *out = 1830; return SUCCESS; }
static int reasons(const Device *d, unsigned long long *out) {
    CHECK(d);
    const Event *e = during(d, "throttle");
    *out = e ? e->a : 0;
    return SUCCESS;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(Device *d, unsigned long long *out) { return reasons(d, out); }
int nvmlDeviceGetCurrentClocksEventReasons(Device *d, unsigned long long *out) {
    return marked(d, "oldreasons") ? NOT_SUPPORTED : reasons(d, out);
}
int nvmlDeviceGetTotalEnergyConsumption(Device *d, unsigned long long *out) {
    CHECK(d);
    if (marked(d, "nocounter")) return NOT_SUPPORTED;
    *out = (unsigned long long)counter(d);
    return SUCCESS;
}
static unsigned milliwatts(const Device *d) { return during(d, "zero") ? 0 : (unsigned)power_at(d, now_ms); }
int nvmlDeviceGetPowerUsage(Device *d, unsigned *out) { CHECK(d); *out = milliwatts(d); return SUCCESS; }
int nvmlDeviceGetFieldValues(Device *d, int n, FieldValue *values) {
    CHECK(d);
    for (int i = 0; i < n; i++) {
        FieldValue *v = &values[i];
        v->type = 1;
        v->status = NOT_SUPPORTED;
        if (v->field == MEMORY_TEMP) { v->status = SUCCESS; v->value.u = 61; }
        if (v->field == POWER_INSTANT && !marked(d, "oldpower") && v->scope == (marked(d, "module") ? 1u : 0u)) {
            v->status = SUCCESS;
            v->value.u = milliwatts(d);
        }
    }
    return SUCCESS;
}
static int runs(const Device *d, const Event *e) {
    return e->dev == d->index && now_ms >= e->from && now_ms < e->to;
}
static unsigned long long used_bytes(const Device *d) {
    unsigned long long used = 500ull << 20;
    for (int i = 0; i < event_count; i++)
        if (runs(d, &events[i]) && (!strcmp(events[i].kind, "process") || !strcmp(events[i].kind, "silent") || !strcmp(events[i].kind, "unlisted")))
            used += events[i].b;
    return used;
}
int nvmlDeviceGetMemoryInfo(Device *d, Memory *out) {
    CHECK(d);
    if (marked(d, "nomemory")) return NOT_SUPPORTED;
    out->total = 81559ull << 20;
    out->used = used_bytes(d);
    out->free = out->total - out->used;
    return SUCCESS;
}
int nvmlDeviceGetComputeRunningProcesses_v3(Device *d, unsigned *count, ProcessInfo *out) {
    CHECK(d);
    unsigned n = 0, room = *count;
    for (int i = 0; i < event_count; i++) {
        Event *e = &events[i];
        int silent = !strcmp(e->kind, "silent");
        if (!runs(d, e) || (!silent && strcmp(e->kind, "process"))) continue;
        if (out && n < room) {
            out[n].pid = (unsigned)e->a;
            out[n].bytes = silent ? 0 : e->b;
        }
        n++;
    }
    *count = n;
    return n && (!out || n > room) ? INSUFFICIENT_SIZE : SUCCESS;
}
