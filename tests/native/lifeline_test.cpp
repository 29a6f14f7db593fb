// Lines of life, between real processes and threads.
#include "atoll/net/lifeline.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <condition_variable>
#include <csignal>
#include <set>

namespace reef {
namespace {

// Words that children share with this process.
struct Words {
  Words()
      : all(static_cast<LifeWord*>(::mmap(nullptr, 4096, PROT_READ | PROT_WRITE,
                                          MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {}
  ~Words() { ::munmap(all, 4096); }
  LifeWord* all;
};

class Lifeline : public ::testing::Test {
 protected:
  void SetUp() override {
    watch = DeathWatch::create([this](std::uint64_t ticket) {
      const std::lock_guard lock(mutex);
      dead.insert(ticket);
      changed.notify_all();
    });
    if (!watch) GTEST_SKIP() << "the kernel has no futex_waitv";
  }
  bool dies(std::uint64_t ticket) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, std::chrono::seconds(20), [&] { return dead.contains(ticket); });
  }
  std::size_t deaths() {
    const std::lock_guard lock(mutex);
    return dead.size();
  }

  Words words;
  std::mutex mutex;
  std::condition_variable changed;
  std::set<std::uint64_t> dead;
  std::unique_ptr<DeathWatch> watch;
};

void await_held(const LifeWord& word) {
  while (word.word.load() == 0) {
    ::usleep(1'000);
  }
}

// Holds the first words, and waits to be killed.
pid_t holder_of(Words& words, std::size_t count) {
  const pid_t child = ::fork();
  if (child == 0) {
    HeldLives lives;
    for (std::size_t i = 0; i < count; ++i) lives.hold(words.all[i]);
    while (true) ::pause();
  }
  await_held(words.all[count - 1]);
  return child;
}

TEST_F(Lifeline, AKilledProcessIsDeadOnAllItsWords) {
  const std::uint64_t early = watch->watch(words.all[2]);  // before anybody holds it
  const pid_t child = holder_of(words, 3);
  const std::uint64_t first = watch->watch(words.all[0]);
  const std::uint64_t never = watch->watch(words.all[7]);  // nobody's
  ASSERT_EQ(::kill(child, SIGKILL), 0);
  EXPECT_TRUE(dies(first));
  EXPECT_TRUE(dies(early));
  EXPECT_FALSE(dead.contains(never));
  const std::uint64_t late = watch->watch(words.all[1]);  // it has been dead for a while
  EXPECT_TRUE(dies(late));
  ::waitpid(child, nullptr, 0);
}

TEST_F(Lifeline, WhatIsReleasedOrForgottenIsNotMissed) {
  std::uint64_t released = 0;
  std::uint64_t held = 0;
  std::thread holder([&] {
    HeldLives lives;
    for (std::size_t i = 0; i < 3; ++i) lives.hold(words.all[i]);
    released = watch->watch(words.all[1]);
    lives.release(words.all[1]);
    lives.release(words.all[1]);  // no matter
    EXPECT_EQ(words.all[1].word.load(), 0u);
    EXPECT_NE(words.all[0].word.load(), 0u);
    held = watch->watch(words.all[0]);
    EXPECT_TRUE(watch->watch(words.all[2]) != 0);
  });
  holder.join();  // its lives have let go of all
  EXPECT_EQ(words.all[0].word.load(), 0u);
  const pid_t child = holder_of(words, 1);
  watch->forget(held);
  const std::uint64_t again = watch->watch(words.all[0]);
  ASSERT_EQ(::kill(child, SIGKILL), 0);
  EXPECT_TRUE(dies(again));
  EXPECT_EQ(deaths(), 1u);
  ::waitpid(child, nullptr, 0);
}

TEST_F(Lifeline, AThreadThatEndsWithoutAWordIsDeadToo) {
  const std::uint64_t ticket = watch->watch(words.all[0]);
  // It must outlive the thread, as the kernel walks it at the thread's end; and nobody else may
  // destroy it, who would put back the lives of a thread of its own.
  static HeldLives* left = nullptr;
  std::thread holder([&] {
    left = new HeldLives;
    left->hold(words.all[0]);
  });
  holder.join();
  EXPECT_TRUE(dies(ticket));
  EXPECT_NE(left, nullptr);  // it is kept to the end
}

TEST_F(Lifeline, WithoutRoomThereIsNoTicket) {
  std::size_t watched = 0;
  while (watched < 200 && watch->watch(words.all[watched]) != 0) ++watched;
  EXPECT_EQ(watched, 127u);
  EXPECT_EQ(watch->watch(words.all[200]), 0u);
  watch->forget(0);
}

}  // namespace
}  // namespace reef
