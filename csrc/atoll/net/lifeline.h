// Lines of life: how a process learns at once that another one of this host has died.
//
// A dying process gives back its memory before it closes its sockets, which takes a tenth of a
// second and more for each gigabyte, and until then its peers take it for slow. Robust futexes come
// first: the kernel walks the list of those that a dying thread holds before it touches its memory,
// and wakes who waits for them. So each side of a channel through shared memory holds a word there
// with its reactor thread, and waits for the other's.
//
// It only ever makes a loss known sooner. Where the kernel cannot do it (before 5.16, some sandboxes),
// or somebody else dies in the same moment, the end of the socket tells as before.
#pragma once

#include <linux/futex.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace reef {

// As it lies in shared memory. `node` is the kernel's way from word to word, in the addresses of
// the process that holds it; nobody else has a use for it.
struct LifeWord {
  robust_list node;
  std::atomic<std::uint32_t> word;  // 0: not held; else as futex(2) says of robust futexes
  std::uint32_t reserved;
};
static_assert(sizeof(LifeWord) == 16 && offsetof(LifeWord, word) == 8, "the layout is shared");

// The words that the calling thread holds until they are released or it ends, in whatever way.
// That thread alone. Its C library's own robust mutexes must not be in use meanwhile.
class HeldLives {
 public:
  HeldLives() = default;
  ~HeldLives();
  HeldLives(const HeldLives&) = delete;
  HeldLives& operator=(const HeldLives&) = delete;

  void hold(LifeWord& word);
  void release(LifeWord& word);  // before its memory goes; a word that is not held is left alone

 private:
  void link_up();

  std::vector<LifeWord*> held_;  // the truth: the nodes can be written by others
  robust_list_head head_{};
  robust_list_head* before_ = nullptr;  // the C library's own
};

// A thread that waits for others' words. Thread-safe, but for creation and destruction.
class DeathWatch {
 public:
  // Called on the watch's own thread, at most once for each ticket; it must be quick.
  using Died = std::function<void(std::uint64_t ticket)>;

  // Null when the kernel has no such wait, or no thread is to be had.
  static std::unique_ptr<DeathWatch> create(Died died);
  ~DeathWatch();
  DeathWatch(const DeathWatch&) = delete;
  DeathWatch& operator=(const DeathWatch&) = delete;

  // Returns a ticket; 0: no room for more, the word is not watched.
  std::uint64_t watch(const LifeWord& word);
  void forget(std::uint64_t ticket);  // before the word's memory goes; 0 and unknown ones: nothing

 private:
  struct Watched {
    std::uint64_t ticket = 0;
    const LifeWord* word = nullptr;
  };

  explicit DeathWatch(Died died);
  void run();
  void changed();

  Died died_;
  std::mutex mutex_;
  std::vector<Watched> watched_;
  std::uint64_t tickets_ = 0;
  bool stopping_ = false;
  std::atomic<std::uint32_t> changes_{0};
  std::thread thread_;
};

}  // namespace reef
