#include "atoll/net/lifeline.h"

#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <system_error>
#include <utility>

#include "atoll/base/result.h"

namespace reef {

namespace {

// futex_waitv(2), Linux 5.16: not in every C library's headers.
#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif
struct Waiter {
  std::uint64_t value = 0;
  std::uint64_t address = 0;
  std::uint32_t flags = 0;
  std::uint32_t reserved = 0;
};
constexpr std::uint32_t kWord32 = 2;
constexpr std::uint32_t kPrivate = 128;
constexpr std::size_t kMostWaiters = 128;

Waiter waiter_for(const std::atomic<std::uint32_t>& word, std::uint32_t value,
                  std::uint32_t scope) {
  return {value, reinterpret_cast<std::uintptr_t>(&word), kWord32 | scope, 0};
}

long wait_for(const Waiter* waiters, std::size_t count) {
  return ::syscall(SYS_futex_waitv, waiters, count, 0, nullptr, 0);
}

void wake(const std::atomic<std::uint32_t>& word, int operation) {
  ::syscall(SYS_futex, reinterpret_cast<const std::uint32_t*>(&word), operation, INT_MAX, nullptr,
            nullptr, 0);
}

bool known_to_kernel() {
  // A wait whose word has another value already ends at once.
  const std::atomic<std::uint32_t> word{1};
  const Waiter waiter = waiter_for(word, 0, kPrivate);
  return wait_for(&waiter, 1) < 0 && errno == EAGAIN;
}

}  // namespace

// ---- one's own ----------------------------------------------------------------------------------

HeldLives::~HeldLives() {
  while (!held_.empty()) {
    release(*held_.back());
  }
  if (before_ != nullptr) {
    ::syscall(SYS_set_robust_list, before_, sizeof *before_);
  }
}

void HeldLives::hold(LifeWord& word) {
  if (before_ == nullptr) {
    std::size_t length = 0;
    head_.futex_offset = offsetof(LifeWord, word);
    head_.list.next = &head_.list;
    if (::syscall(SYS_get_robust_list, 0, &before_, &length) != 0 ||
        ::syscall(SYS_set_robust_list, &head_, sizeof head_) != 0) {
      before_ = nullptr;
      return;
    }
  }
  // Said to be waited for from the beginning: the kernel then wakes without being asked to.
  word.word.store(static_cast<std::uint32_t>(::gettid()) | FUTEX_WAITERS);
  held_.push_back(&word);
  link_up();
  wake(word.word, FUTEX_WAKE);
}

void HeldLives::release(LifeWord& word) {
  const auto at = std::find(held_.begin(), held_.end(), &word);
  if (at == held_.end()) {
    return;
  }
  held_.erase(at);
  link_up();
  word.word.store(0);
  wake(word.word, FUTEX_WAKE);
}

void HeldLives::link_up() {
  robust_list* next = &head_.list;
  for (LifeWord* one : held_) {
    one->node.next = next;
    next = &one->node;
  }
  std::atomic_signal_fence(std::memory_order_seq_cst);  // whole before the kernel may walk it
  head_.list.next = next;
}

// ---- the others' --------------------------------------------------------------------------------

std::unique_ptr<DeathWatch> DeathWatch::create(Died died) {
  if (!known_to_kernel()) {
    return nullptr;
  }
  try {
    return std::unique_ptr<DeathWatch>(new DeathWatch(std::move(died)));
  } catch (const std::system_error&) {  // no thread to be had: sockets tell of deaths, too
    return nullptr;
  }
}

DeathWatch::DeathWatch(Died died) : died_(std::move(died)) {
  thread_ = std::thread([this] { run(); });
}

DeathWatch::~DeathWatch() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed();
  thread_.join();
}

std::uint64_t DeathWatch::watch(const LifeWord& word) {
  std::uint64_t ticket = 0;
  {
    const std::lock_guard lock(mutex_);
    if (watched_.size() + 1 >= kMostWaiters) {
      return 0;
    }
    ticket = ++tickets_;
    watched_.push_back({ticket, &word});
  }
  changed();
  return ticket;
}

void DeathWatch::forget(std::uint64_t ticket) {
  {
    const std::lock_guard lock(mutex_);
    std::erase_if(watched_, [ticket](const Watched& one) { return one.ticket == ticket; });
  }
  changed();
}

void DeathWatch::changed() {
  changes_.fetch_add(1);
  wake(changes_, FUTEX_WAKE_PRIVATE);
}

void DeathWatch::run() {
  ::pthread_setname_np(::pthread_self(), "atoll-lifeline");
  std::array<Waiter, kMostWaiters> waiters;
  std::vector<std::uint64_t> dead;
  while (true) {
    std::size_t count = 1;
    waiters[0] = waiter_for(changes_, changes_.load(), kPrivate);
    {
      const std::lock_guard lock(mutex_);
      if (stopping_) {
        return;
      }
      std::erase_if(watched_, [&](const Watched& one) {
        const std::uint32_t value = one.word->word.load();
        if ((value & FUTEX_OWNER_DIED) != 0) {
          dead.push_back(one.ticket);
          return true;
        }
        waiters[count++] = waiter_for(one.word->word, value, 0);
        return false;
      });
    }
    for (const std::uint64_t ticket : dead) {
      died_(ticket);
    }
    dead.clear();
    // The memory of a word that was forgotten since may be gone: the kernel then says EFAULT, or
    // finds another value there, and the next turn does without it.
    if (wait_for(waiters.data(), count) < 0 && errno != EAGAIN && errno != EINTR &&
        errno != EFAULT) {
      return;  // the sockets tell
    }
  }
}

}  // namespace reef
