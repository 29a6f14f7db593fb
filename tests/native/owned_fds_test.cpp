// What a forked child inherits of an engine: nothing that keeps a connection open.
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <csignal>

#include "atoll/net/fd.h"

namespace reef {
namespace {

TEST(OwnedFds, AChildThatLivesKeepsNoConnectionOpen) {
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
  Fd mine(ends[0]);
  int told[2];
  ASSERT_EQ(::pipe(told), 0);  // nobody's: the child keeps it
  const pid_t child = ::fork();
  if (child == 0) {
    const char here = 1;
    (void)!::write(told[1], &here, 1);
    while (true) ::pause();
  }
  char byte = 0;
  ASSERT_EQ(::read(told[0], &byte, 1), 1);
  mine.reset();
  pollfd other{.fd = ends[1], .events = POLLIN, .revents = 0};
  const int ended = ::poll(&other, 1, 20'000);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  ASSERT_EQ(ended, 1) << "the child holds the connection";
  EXPECT_EQ(::read(ends[1], &byte, 1), 0);
  ::close(ends[1]);
  ::close(told[0]);
  ::close(told[1]);
}

TEST(OwnedFds, WhatWasReleasedIsSomebodyElses) {
  int first[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, first), 0);
  { const Fd gone(first[0]); }
  int told[2];  // has the number that was released
  ASSERT_EQ(::pipe(told), 0);
  ASSERT_EQ(told[0], first[0]);
  const pid_t child = ::fork();
  if (child == 0) {
    char byte = 0;
    ::_exit(::read(told[0], &byte, 1) == 1 ? 0 : 1);
  }
  const char word = 1;
  ASSERT_EQ(::write(told[1], &word, 1), 1);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  ::close(first[1]);
  ::close(told[0]);
  ::close(told[1]);
}

}  // namespace
}  // namespace reef
