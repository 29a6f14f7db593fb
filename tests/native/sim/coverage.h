// What happened in simulated worlds: by it a test sees that they are not tame.
#pragma once

#include <cstdint>
#include <cstdio>

namespace reef::sim {

struct Coverage {
  std::uint64_t committed = 0;
  std::uint64_t failed = 0;
  std::uint64_t rerun = 0;
  std::uint64_t stale = 0;
  std::uint64_t early = 0;
  std::uint64_t aborts = 0;
  std::uint64_t drains = 0;
  std::uint64_t breaks = 0;        // connections
  std::uint64_t repairs = 0;       // connections
  std::uint64_t resent = 0;        // frames
  std::uint64_t cut_short = 0;     // frames
  std::uint64_t thrown_away = 0;   // frames of released ops
  std::uint64_t old_attempts = 0;  // HELLOs that were shut out
  std::uint64_t hopeless = 0;      // links whose repair took too long

  Coverage& operator+=(const Coverage& other) {
    committed += other.committed;
    failed += other.failed;
    rerun += other.rerun;
    stale += other.stale;
    early += other.early;
    aborts += other.aborts;
    drains += other.drains;
    breaks += other.breaks;
    repairs += other.repairs;
    resent += other.resent;
    cut_short += other.cut_short;
    thrown_away += other.thrown_away;
    old_attempts += other.old_attempts;
    hopeless += other.hopeless;
    return *this;
  }
  void print() const {
    const auto say = [](const char* name, std::uint64_t count) {
      std::printf("%s %llu  ", name, static_cast<unsigned long long>(count));
    };
    say("ops: committed", committed);
    say("failed", failed);
    say("rerun", rerun);
    say("\nframes: stale", stale);
    say("early", early);
    say("resent", resent);
    say("cut short", cut_short);
    say("thrown away", thrown_away);
    say("\ninstalls: abort", aborts);
    say("drain", drains);
    say("\nconnections: lost", breaks);
    say("mended", repairs);
    say("old attempts", old_attempts);
    say("not mended in time", hopeless);
    std::printf("\n");
  }
};

}  // namespace reef::sim
