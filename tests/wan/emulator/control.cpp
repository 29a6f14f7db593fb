#include "control.h"

#include <cmath>
#include <functional>
#include <optional>
#include <sstream>
#include <vector>

namespace wan {

namespace {

struct Wrong {
  std::string what;
};
using Words = std::vector<std::string>;

struct Range {
  double least = 0;
  double most = 0;
  const char* unit = "";
};
constexpr Range kRate{1e-3, 1e5, "Mbit/s"};
constexpr Range kQueue{1, 1e4, "ms"};
constexpr Range kTime{0, 6e4, "ms"};
constexpr Range kLoss{0, 1, "of all packets"};

std::string shown(double value) {
  std::ostringstream text;
  text << value;
  return text.str();
}

double number(const std::string& key, const std::string& word, const Range& range) {
  double value = NAN;
  std::istringstream text(word);
  text >> value;
  if (text.fail() || !text.eof() || !(value >= range.least && value <= range.most)) {
    throw Wrong{key + " " + word + " is not between " + shown(range.least) + " and " +
                shown(range.most) + " " + range.unit};
  }
  return value;
}

Nanos time_of(const std::string& key, const std::string& word, const Range& range) {
  return static_cast<Nanos>(number(key, word, range) * static_cast<double>(kMillisecond));
}

std::vector<Host> hosts_of(const std::string& word, const Network& network) {
  std::vector<Host> hosts;
  if (word == "*") {
    for (Host host = 0; host < network.hosts(); ++host) hosts.push_back(host);
    return hosts;
  }
  const bool digits =
      !word.empty() && word.size() <= 4 && word.find_first_not_of("0123456789") == word.npos;
  if (!digits || std::stoul(word) >= network.hosts()) {
    throw Wrong{"there is no host " + word + "; hosts are 0 to " +
                std::to_string(network.hosts() - 1) + ", or *"};
  }
  return {static_cast<Host>(std::stoul(word))};
}

using Change = std::function<void()>;
using Changes = std::vector<Change>;

Change of_line(Line& line, const std::string& key, const std::string& word) {
  if (key == "up") {
    return [&line, value = number(key, word, kRate) * 1e6] { line.up_bits_per_s = value; };
  }
  if (key == "down") {
    return [&line, value = number(key, word, kRate) * 1e6] { line.down_bits_per_s = value; };
  }
  if (key == "queue") {
    return [&line, value = time_of(key, word, kQueue)] { line.queue = value; };
  }
  throw Wrong{"a host has no '" + key + "'; it has up, down and queue"};
}

Change of_path(Path& path, const std::string& key, const std::string& word) {
  if (key == "delay") {
    return [&path, value = time_of(key, word, kTime)] { path.delay = value; };
  }
  if (key == "jitter") {
    return [&path, value = time_of(key, word, kTime)] { path.jitter = value; };
  }
  if (key == "loss") return [&path, value = number(key, word, kLoss)] { path.loss = value; };
  if (key == "rate") {
    const double value = word == "0" ? 0 : number(key, word, kRate) * 1e6;
    return [&path, value] { path.bits_per_s = value; };
  }
  throw Wrong{"a link has no '" + key + "'; it has delay, jitter, loss and rate"};
}

void check_pairs(const Words& words, std::size_t names) {
  if (words.size() < names + 2 || (words.size() - names) % 2 != 0) {
    throw Wrong{"'" + words[0] + "' takes " + std::to_string(names - 1) +
                (names == 2 ? " host" : " hosts") + " and then names with their values"};
  }
}

std::vector<Path*> paths_of(const Words& words, Network& network, bool both_ways) {
  if (words.size() < 3) throw Wrong{"'" + words[0] + "' takes two hosts"};
  std::vector<Path*> paths;
  for (const Host from : hosts_of(words[1], network)) {
    for (const Host to : hosts_of(words[2], network)) {
      if (from == to) continue;
      paths.push_back(&network.path(from, to));
      if (both_ways) paths.push_back(&network.path(to, from));
    }
  }
  if (paths.empty()) throw Wrong{"a host has no link to itself"};
  return paths;
}

Changes changes_of(const Words& words, Network& network) {
  const std::string& verb = words[0];
  Changes changes;
  if (verb == "host") {
    check_pairs(words, 2);
    for (const Host host : hosts_of(words[1], network)) {
      for (std::size_t i = 2; i < words.size(); i += 2) {
        changes.push_back(of_line(network.line(host), words[i], words[i + 1]));
      }
    }
  } else if (verb == "link" || verb == "path") {
    check_pairs(words, 3);
    for (Path* path : paths_of(words, network, verb == "link")) {
      for (std::size_t i = 3; i < words.size(); i += 2) {
        changes.push_back(of_path(*path, words[i], words[i + 1]));
      }
    }
  } else if (verb == "cut" || verb == "heal") {
    if (words.size() != 3) throw Wrong{"'" + verb + "' takes two hosts"};
    for (Path* path : paths_of(words, network, true)) {
      changes.push_back([path, cut = verb == "cut"] { path->cut = cut; });
    }
  } else if (verb == "isolate" || verb == "rejoin") {
    if (words.size() != 2) throw Wrong{"'" + verb + "' takes one host"};
    for (const Host host : hosts_of(words[1], network)) {
      changes.push_back([&line = network.line(host), isolated = verb == "isolate"] {
        line.isolated = isolated;
      });
    }
  } else {
    throw Wrong{"no command '" + verb +
                "'; there are host, link, path, cut, heal, isolate, rejoin, mark and report"};
  }
  return changes;
}

}  // namespace

std::string report(const Network& network, const Lateness& lateness) {
  std::ostringstream text;
  text << "{\"packets\": " << lateness.count()
       << ", \"late_p50_us\": " << lateness.percentile_micros(50)
       << ", \"late_p99_us\": " << lateness.percentile_micros(99)
       << ", \"late_most_us\": " << lateness.most_micros()
       << ", \"void\": " << (lateness.is_void() ? "true" : "false") << ", \"hosts\": [";
  for (Host host = 0; host < network.hosts(); ++host) {
    const Tally& tally = network.tally(host);
    text << (host == 0 ? "" : ", ") << "{\"sent_bytes\": " << tally.sent_bytes
         << ", \"delivered_bytes\": " << tally.delivered_bytes
         << ", \"dropped_full\": " << tally.dropped_full
         << ", \"dropped_lost\": " << tally.dropped_lost
         << ", \"dropped_cut\": " << tally.dropped_cut << "}";
  }
  text << "]}";
  return text.str();
}

std::string obey(const std::string& line, Network& network, Lateness& lateness) {
  Words words;
  std::istringstream text(line);
  for (std::string word; text >> word;) words.push_back(word);
  if (words.empty()) return "error: an empty line";
  if (words.size() == 1 && words[0] == "report") return report(network, lateness);
  if (words.size() == 1 && words[0] == "mark") {
    lateness.reset();
    network.reset_tallies();
    return "ok";
  }
  try {
    // All of a line is understood before any of it is done.
    for (const Change& change : changes_of(words, network)) change();
  } catch (const Wrong& wrong) {
    return "error: " + wrong.what;
  }
  return "ok";
}

}  // namespace wan
