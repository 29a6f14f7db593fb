#include "atoll/net/shm_memory.h"

#include <fcntl.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

namespace reef {

namespace {

// Indices first, then the two data areas. A multiple of every page size, so that the layout is the
// same on every machine.
constexpr std::size_t kIndexBytes = 64u << 10;
constexpr std::size_t kLifeOffset = 2 * sizeof(RingIndices);  // of two words, a line's pair apart
constexpr std::size_t kLifeStride = 128;
constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

#ifndef MFD_NOEXEC_SEAL  // Linux 6.3; kernels may be set to insist on it
#define MFD_NOEXEC_SEAL 0x0008U
#endif

constexpr std::size_t file_bytes(std::size_t capacity) { return kIndexBytes + 2 * capacity; }
constexpr std::size_t mapped_bytes(std::size_t capacity) { return kIndexBytes + 4 * capacity; }

Error failed(const char* what) {
  const int reason = errno;
  return Error{Code::io, reason, std::string(what) + ": " + strerror(reason)};
}

Error unfit(const char* what) { return Error{Code::protocol, 0, what}; }

}  // namespace

Result<ShmMemory> ShmMemory::create(std::size_t capacity) {
  check(std::has_single_bit(capacity) && capacity >= kMinCapacity && capacity <= kMaxCapacity,
        "ShmMemory::create: no such capacity");
  ShmMemory memory;
  const unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  memory.memfd_ = Fd(::memfd_create("atoll-link", flags | MFD_NOEXEC_SEAL));
  if (!memory.memfd_.valid() && errno == EINVAL) {
    memory.memfd_ = Fd(::memfd_create("atoll-link", flags));
  }
  if (!memory.memfd_.valid()) {
    return failed("cannot create shared memory");
  }
  memory.capacity_ = capacity;
  // Reserved now: a page that is missing later would be a SIGBUS.
  const auto bytes = static_cast<off_t>(file_bytes(capacity));
  if (::fallocate(memory.memfd_.get(), 0, 0, bytes) != 0) {
    return failed("cannot reserve shared memory");
  }
  if (::fcntl(memory.memfd_.get(), F_ADD_SEALS, kSeals) != 0) {
    return failed("cannot seal shared memory");
  }
  if (Status status = memory.map(); !status.ok()) {
    return status.error();
  }
  return memory;
}

Result<ShmMemory> ShmMemory::adopt(Fd memfd) {
  const int seals = ::fcntl(memfd.get(), F_GET_SEALS);
  if (seals < 0 || (seals & (F_SEAL_SHRINK | F_SEAL_GROW)) != (F_SEAL_SHRINK | F_SEAL_GROW)) {
    return unfit("what was passed is no sealed memory");
  }
  struct stat status {};
  if (::fstat(memfd.get(), &status) != 0) {
    return failed("cannot look at shared memory");
  }
  const auto bytes = static_cast<std::uint64_t>(status.st_size);
  if (bytes < file_bytes(kMinCapacity) || bytes > file_bytes(kMaxCapacity) ||
      !std::has_single_bit((bytes - kIndexBytes) / 2) || (bytes - kIndexBytes) % 2 != 0) {
    return unfit("the shared memory has another size than two rings");
  }
  if (static_cast<std::uint64_t>(status.st_blocks) * 512 < bytes) {
    return unfit("the shared memory is not reserved in full");
  }
  ShmMemory memory;
  memory.memfd_ = std::move(memfd);
  memory.capacity_ = static_cast<std::size_t>((bytes - kIndexBytes) / 2);
  if (Status mapped = memory.map(); !mapped.ok()) {
    return mapped.error();
  }
  return memory;
}

Status ShmMemory::map() {
  void* space = ::mmap(nullptr, mapped_bytes(capacity_), PROT_NONE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (space == MAP_FAILED) {
    return failed("cannot find room for shared memory");
  }
  base_ = static_cast<std::byte*>(space);
  const auto place = [this](std::size_t at, std::size_t offset, std::size_t bytes) {
    // Populated at once: the first turn around a ring must not fault page by page.
    return ::mmap(base_ + at, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_POPULATE,
                  memfd_.get(), static_cast<off_t>(offset)) != MAP_FAILED;
  };
  bool good = place(0, 0, kIndexBytes);
  for (std::size_t copy = 0; copy < 4; ++copy) {
    good = good && place(kIndexBytes + copy * capacity_, kIndexBytes + copy / 2 * capacity_,
                         capacity_);
  }
  if (!good) {
    const Error error = failed("cannot map shared memory");
    unmap();
    return error;
  }
  return Unit{};
}

RingView ShmMemory::ring(std::size_t index) const {
  check(valid() && index < 2, "ShmMemory::ring: no such ring");
  return RingView{reinterpret_cast<RingIndices*>(base_) + index,
                  base_ + kIndexBytes + 2 * index * capacity_, capacity_};
}

LifeWord& ShmMemory::life(std::size_t index) const {
  check(valid() && index < 2, "ShmMemory::life: no such word");
  return *reinterpret_cast<LifeWord*>(base_ + kLifeOffset + index * kLifeStride);
}

void ShmMemory::unmap() {
  if (base_ != nullptr) {
    ::munmap(std::exchange(base_, nullptr), mapped_bytes(capacity_));
  }
}

ShmMemory::~ShmMemory() { unmap(); }

ShmMemory::ShmMemory(ShmMemory&& other) noexcept
    : memfd_(std::move(other.memfd_)),
      base_(std::exchange(other.base_, nullptr)),
      capacity_(other.capacity_) {}

ShmMemory& ShmMemory::operator=(ShmMemory&& other) noexcept {
  if (this != &other) {
    unmap();
    memfd_ = std::move(other.memfd_);
    base_ = std::exchange(other.base_, nullptr);
    capacity_ = other.capacity_;
  }
  return *this;
}

}  // namespace reef
