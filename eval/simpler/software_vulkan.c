/* Out: a Vulkan driver that is Mesa's lavapipe and says yes to VK_KHR_external_semaphore_fd.
 *
 * SAPIEN 2 asks every driver for that extension, with which it would share images with CUDA. Lavapipe, which draws on
 * the CPU, lacks it and has no use for it. This file stands before lavapipe: it adds the extension to what the driver
 * lists and takes it out of what it is asked for; everything else is lavapipe's own. For machines without a GPU;
 * `scripts/setup_simplerenv.sh --cpu` builds it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define VK_INCOMPLETE 5
#define VK_ERROR_OUT_OF_HOST_MEMORY (-1)

/* The few parts of vulkan.h that are used, so that no header package is needed. */
typedef void (*Function)(void);
typedef struct { char name[256]; uint32_t version; } Extension;
typedef struct {
    int type;
    const void *next;
    uint32_t flags, queues;
    const void *queue_infos;
    uint32_t layers;
    const char *const *layer_names;
    uint32_t extensions;
    const char *const *extension_names;
    const void *features;
} DeviceInfo;

static const char *const ADDED = "VK_KHR_external_semaphore_fd";
static Function (*instance_function)(void *, const char *);
static Function (*device_function)(void *, const char *);
static int (*negotiate)(uint32_t *);
static int (*create_device)(void *, const DeviceInfo *, const void *, void **);
static int (*list_extensions)(void *, const char *, uint32_t *, Extension *);

__attribute__((constructor)) static void open_lavapipe(void) {
    const char *path = getenv("LAVAPIPE");
    void *driver = dlopen(path ? path : "libvulkan_lvp.so", RTLD_NOW | RTLD_LOCAL);
    if (!driver) {
        fprintf(stderr, "software_vulkan: %s; install mesa-vulkan-drivers of version 25 or newer\n", dlerror());
        abort();
    }
    instance_function = (Function(*)(void *, const char *))dlsym(driver, "vk_icdGetInstanceProcAddr");
    device_function = (Function(*)(void *, const char *))dlsym(driver, "vk_icdGetPhysicalDeviceProcAddr");
    negotiate = (int (*)(uint32_t *))dlsym(driver, "vk_icdNegotiateLoaderICDInterfaceVersion");
}

static int create_device_without(void *device, const DeviceInfo *asked, const void *allocator, void **made) {
    DeviceInfo info = *asked;
    const char **kept = malloc(sizeof(*kept) * (asked->extensions + 1));
    if (!kept) return VK_ERROR_OUT_OF_HOST_MEMORY;
    info.extensions = 0;
    info.extension_names = kept;
    for (uint32_t i = 0; i < asked->extensions; i++)
        if (strcmp(asked->extension_names[i], ADDED)) kept[info.extensions++] = asked->extension_names[i];
    int result = create_device(device, &info, allocator, made);
    free(kept);
    return result;
}

static int list_extensions_and(void *device, const char *layer, uint32_t *count, Extension *list) {
    uint32_t own = 0;
    int result = list_extensions(device, layer, &own, NULL);
    if (layer || result) return list_extensions(device, layer, count, list);
    if (!list) {
        *count = own + 1;
        return 0;
    }
    if (*count <= own) {
        result = list_extensions(device, NULL, count, list);
        return result ? result : VK_INCOMPLETE;
    }
    result = list_extensions(device, NULL, &own, list);
    memset(&list[own], 0, sizeof(*list));
    strcpy(list[own].name, ADDED);
    list[own].version = 1;
    *count = own + 1;
    return result;
}

static Function ours(const char *name, Function theirs) {
    if (theirs && !strcmp(name, "vkCreateDevice")) {
        create_device = (int (*)(void *, const DeviceInfo *, const void *, void **))theirs;
        return (Function)create_device_without;
    }
    if (theirs && !strcmp(name, "vkEnumerateDeviceExtensionProperties")) {
        list_extensions = (int (*)(void *, const char *, uint32_t *, Extension *))theirs;
        return (Function)list_extensions_and;
    }
    return theirs;
}

EXPORT Function vk_icdGetInstanceProcAddr(void *instance, const char *name) {
    return ours(name, instance_function(instance, name));
}

EXPORT Function vk_icdGetPhysicalDeviceProcAddr(void *instance, const char *name) {
    return device_function ? ours(name, device_function(instance, name)) : NULL;
}

EXPORT int vk_icdNegotiateLoaderICDInterfaceVersion(uint32_t *version) { return negotiate(version); }
