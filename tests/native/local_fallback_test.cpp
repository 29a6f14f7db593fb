// Shared memory that cannot be had, for real, in processes of their own with tight limits: the link comes
// up over the network, works, and each side that failed says so once.
#include <gtest/gtest.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <functional>
#include <string>

#include "atoll/net/shm_tuning.h"
#include "island.h"

namespace reef::testing {
namespace {

constexpr std::uint64_t kMappedBytes = 4 * shm::kRingBytes;

// 0 when it ends without a failed expectation.
int in_a_child(const std::function<void()>& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    body();
    std::fflush(nullptr);
    std::_Exit(::testing::Test::HasFailure() ? 1 : 0);
  }
  int status = -1;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return status;
}

// Room that other threads' heaps take and give back would make a limit uncertain.
void keep_one_heap() { ::mallopt(M_ARENA_MAX, 1); }

void limit(int resource, std::uint64_t most) {
  const rlimit both{most, most};
  ASSERT_EQ(::setrlimit(static_cast<__rlimit_resource>(resource), &both), 0);
}
// Files may not grow to the size of the rings.
void limit_files() {
  ::signal(SIGXFSZ, SIG_IGN);  // as Python does
  limit(RLIMIT_FSIZE, shm::kRingBytes / 2);
}
// There is room for all but another pair of rings.
void limit_room() {
  std::uint64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  ASSERT_GT(pages, 0u);
  limit(RLIMIT_AS, pages * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)) + kMappedBytes / 2);
}
constexpr bool kSanitized =
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    true;
#else
    false;
#endif

Transport transport_to(Island& island, const PeerId& peer) {
  for (const LinkStats& link : island.engine->stats().links) {
    if (link.peer == peer) return link.transport;
  }
  return Transport::none;
}

// The link is TCP, and the only event about it gives this reason.
void expect_fallback(Island& island, const PeerId& peer, const std::string& reason) {
  EXPECT_EQ(transport_to(island, peer), Transport::tcp);
  const NotLocal event = island.await<NotLocal>();
  EXPECT_EQ(event.peer, peer);
  EXPECT_NE(event.message.find("is reached over the network"), std::string::npos)
      << event.message;
  EXPECT_NE(event.message.find(reason), std::string::npos) << event.message;
  for (const Event& other : island.engine->take_events()) {
    EXPECT_FALSE(std::holds_alternative<NotLocal>(other));
  }
}

void expect_work(Island& old, Island& young) {
  const View view{1, {old.id, young.id}};
  old.install(view);
  young.install(view);
  const OpId first = old.barrier();
  const OpId second = young.barrier();
  EXPECT_EQ(old.code(first), Code::ok);
  EXPECT_EQ(young.code(second), Code::ok);
}

class LocalFallback : public ::testing::Test {
 protected:
  // Both in one process: the dialler, which makes the memory, fails.
  static void dial_in_vain(void (*tighten)(), const std::string& reason) {
    keep_one_heap();
    Island old(1);
    Island young(2);
    tighten();
    old.engine->expect(young.id);
    young.engine->dial(old.id, "127.0.0.1", old.engine->port());
    old.await_up(young.id);
    young.await_up(old.id);
    expect_fallback(young, old.id, reason);
    EXPECT_EQ(transport_to(old, young.id), Transport::tcp);
    EXPECT_EQ(young.engine->stats().shared_memory_failures, 1u);
    expect_work(old, young);
  }

 private:
  TransportChoice choice_{true};
};

TEST_F(LocalFallback, MemoryThatCannotBeReserved) {
  EXPECT_EQ(in_a_child([] {
    dial_in_vain(limit_files, "cannot reserve shared memory: File too large");
  }), 0);
}

TEST_F(LocalFallback, MemoryThatCannotBeMapped) {
  if (kSanitized) GTEST_SKIP() << "a sanitizer needs room without limit";
  EXPECT_EQ(in_a_child([] {
    dial_in_vain(limit_room, "cannot find room for shared memory: Cannot allocate memory");
  }), 0);
}

// The acceptor cannot map what the dialler has made: both say so.
TEST_F(LocalFallback, MemoryThatTheOtherSideCannotMap) {
  if (kSanitized) GTEST_SKIP() << "a sanitizer needs room without limit";
  int ports[2];
  int done[2];
  ASSERT_EQ(::pipe2(ports, O_CLOEXEC), 0);
  ASSERT_EQ(::pipe2(done, O_CLOEXEC), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::close(done[1]);
    keep_one_heap();
    Island old(1);
    limit_room();
    old.engine->expect(id_of(2));
    const std::uint16_t port = old.engine->port();
    EXPECT_EQ(::write(ports[1], &port, sizeof port), static_cast<ssize_t>(sizeof port));
    old.await_up(id_of(2));
    expect_fallback(old, id_of(2), "cannot find room for shared memory: Cannot allocate memory");
    char none = 0;
    EXPECT_EQ(::read(done[0], &none, 1), 0);  // until the other one has looked
    std::fflush(nullptr);
    std::_Exit(::testing::Test::HasFailure() ? 1 : 0);
  }
  ::close(ports[1]);
  std::uint16_t port = 0;
  ASSERT_EQ(::read(ports[0], &port, sizeof port), static_cast<ssize_t>(sizeof port));
  Island young(2);
  young.engine->dial(id_of(1), "127.0.0.1", port);
  young.await_up(id_of(1));
  expect_fallback(young, id_of(1), "the peer did not take it");
  EXPECT_EQ(young.engine->stats().shared_memory_failures, 1u);
  for (const int fd : {ports[0], done[0], done[1]}) ::close(fd);
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace reef::testing
