// For tests: this test program again, as a process of its own that can be killed or stopped.
//
// The child runs the disabled test Child.Run, which plays the role named in its environment.
#pragma once

#include <signal.h>
#include <spawn.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "island.h"

namespace reef::testing {

class Child {
 public:
  // `olders` are the islands that the child dials and, with itself, forms view 1 of.
  Child(const std::string& role, unsigned number, const std::vector<Island*>& olders) {
    std::string dial;
    for (Island* older : olders) {
      older->engine->expect(id_of(number));
      dial += std::to_string(older->id.bytes[0]) + ":" + std::to_string(older->engine->port()) +
              " ";
    }
    std::vector<std::string> environment = {"CHILD_ROLE=" + role,
                                            "CHILD_NUMBER=" + std::to_string(number),
                                            "CHILD_DIALS=" + dial,
                                            std::string("CHILD_SHARED_MEMORY=") +
                                                (shared_memory_chosen() ? "1" : "0")};
    for (char** entry = environ; *entry != nullptr; ++entry) {
      if (std::string(*entry).rfind("GTEST_", 0) != 0) {
        environment.emplace_back(*entry);
      }
    }
    std::vector<char*> env;
    for (std::string& entry : environment) {
      env.push_back(entry.data());
    }
    env.push_back(nullptr);
    std::string program = "/proc/self/exe";
    std::string filter = "--gtest_filter=Child.DISABLED_Run";
    std::string disabled = "--gtest_also_run_disabled_tests";
    std::string quiet = "--gtest_brief=1";
    char* arguments[] = {program.data(), filter.data(), disabled.data(), quiet.data(), nullptr};
    EXPECT_EQ(posix_spawn(&pid_, program.c_str(), nullptr, nullptr, arguments, env.data()), 0);
  }
  ~Child() { kill(); }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  void stop() const { ::kill(pid_, SIGSTOP); }
  void kill() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
      pid_ = -1;
    }
  }

 private:
  pid_t pid_ = -1;
};

}  // namespace reef::testing
